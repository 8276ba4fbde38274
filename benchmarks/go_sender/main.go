// Command go_sender sends streams of access logs with the gRPC library that Rover is built with.
//
// It reads streams from a file (of each a little-endian uint32 count, then for each message a uint32
// length and its bytes), sends one every so often on each of some connections, message by message,
// waits for each answer, and prints what became of them as JSON.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	method   = "/skywalking.v3.EBPFAccessLogService/collect"
	deadline = 20 * time.Second
)

// rawCodec leaves messages as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(message any) ([]byte, error) { return *message.(*[]byte), nil }

func (rawCodec) Unmarshal(content []byte, into any) error {
	*into.(*[]byte) = slices.Clone(content)
	return nil
}

type stream [][]byte

// outcome is what became of one stream; wait is from its end until its answer.
type outcome struct {
	messages int
	wait     time.Duration
	err      error
}

type report struct {
	Messages int                `json:"messages"`
	Streams  int                `json:"streams"`
	Failed   int                `json:"failed"`
	Error    string             `json:"error"`
	Seconds  float64            `json:"seconds"`
	AnswerMs map[string]float64 `json:"answer_ms"`
}

func main() {
	file := flag.String("file", "", "the streams to send")
	to := flag.String("to", "127.0.0.1:11800", "the address of the server")
	connections := flag.Int("connections", 1, "how many connections")
	every := flag.Duration("every", 0, "time from one stream of a connection to its next")
	flag.Parse()
	streams, err := readStreams(*file)
	if err != nil {
		fail(err)
	}
	outcomes := make([]outcome, len(streams))
	begun := time.Now()
	var sending sync.WaitGroup
	for number := range *connections {
		channel, err := grpc.NewClient(*to,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(rawCodec{})))
		if err != nil {
			fail(err)
		}
		defer channel.Close()
		// Connections take turns, as nodes do that were started at different times.
		first := begun.Add(*every * time.Duration(number) / time.Duration(*connections))
		sending.Go(func() {
			for turn, index := 0, number; index < len(streams); turn, index = turn+1, index+*connections {
				time.Sleep(time.Until(first.Add(*every * time.Duration(turn))))
				outcomes[index] = send(channel, streams[index])
			}
		})
	}
	sending.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(summary(outcomes, time.Since(begun))); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func send(channel *grpc.ClientConn, messages stream) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	call, err := channel.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, method)
	if err != nil {
		return outcome{err: err}
	}
	for _, message := range messages {
		if err := call.SendMsg(&message); err != nil {
			// The status comes with the answer.
			break
		}
	}
	if err := call.CloseSend(); err != nil {
		return outcome{err: err}
	}
	ended := time.Now()
	var answer []byte
	if err := call.RecvMsg(&answer); err != nil {
		return outcome{err: err}
	}
	return outcome{len(messages), time.Since(ended), nil}
}

func summary(outcomes []outcome, elapsed time.Duration) report {
	found := report{Streams: len(outcomes), Seconds: elapsed.Seconds()}
	var waits []float64
	for _, one := range outcomes {
		if one.err != nil {
			found.Failed++
			found.Error = one.err.Error()
			continue
		}
		found.Messages += one.messages
		waits = append(waits, float64(one.wait)/float64(time.Millisecond))
	}
	slices.Sort(waits)
	if count := len(waits); count > 0 {
		found.AnswerMs = map[string]float64{
			"p50": waits[count/2], "p99": waits[count*99/100], "max": waits[count-1],
		}
	}
	return found
}

func readStreams(path string) ([]stream, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	reader := bufio.NewReader(file)
	var streams []stream
	for {
		var count uint32
		if err := binary.Read(reader, binary.LittleEndian, &count); errors.Is(err, io.EOF) {
			return streams, nil
		} else if err != nil {
			return nil, err
		}
		messages := make(stream, count)
		for index := range messages {
			var size uint32
			if err := binary.Read(reader, binary.LittleEndian, &size); err != nil {
				return nil, err
			}
			messages[index] = make([]byte, size)
			if _, err := io.ReadFull(reader, messages[index]); err != nil {
				return nil, err
			}
		}
		streams = append(streams, messages)
	}
}
