//go:build tools

// Package apiserver names the command that is built.
package apiserver

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
