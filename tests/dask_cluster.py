"""A Dask cluster of real processes, as docs/replay.md starts it: TLS, a scheduler, workers."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from processes import ending, free_port

_DASK = str(Path(sys.executable).with_name("dask"))


@dataclass
class Cluster:
    """Where it is, what it is known by, and its processes: each of `nannies` has a worker."""

    address: str
    ca: Path
    certificate: Path
    key: Path
    scheduler: subprocess.Popen[bytes]
    nannies: list[subprocess.Popen[bytes]] = field(default_factory=list)


@contextmanager
def cluster_of(workers: int, folder: Path) -> Iterator[Cluster]:
    """Start a scheduler and so many workers; they are ended with their nannies."""
    folder.mkdir()
    certificate, key = made_certificate(folder)
    address = f"tls://127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        port = address.rpartition(":")[2]
        options = ("--protocol", "tls", "--host", "127.0.0.1", "--port", port)
        scheduler = started(folder, certificate, key, "scheduler", *options)
        stack.enter_context(ending(scheduler))
        cluster = Cluster(address, certificate, certificate, key, scheduler)
        for _ in range(workers):
            options = ("--nthreads", 1, "--local-directory", folder)
            nanny = started(folder, certificate, key, "worker", address, *options)
            cluster.nannies.append(stack.enter_context(ending(nanny)))
        yield cluster
        for one in (*cluster.nannies, scheduler):
            one.terminate()


def started(
    folder: Path, certificate: Path, key: Path, *arguments: object
) -> subprocess.Popen[bytes]:
    """Start a process of a cluster, which writes its lines into a folder."""
    tls = ["--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [_DASK, *map(str, arguments), *map(str, tls), "--no-dashboard"],
            env=os.environ | {"POLARS_MAX_THREADS": "1"},
            cwd=folder,
            stdout=log,
            stderr=log,
        )


def made_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a key, and a certificate of it that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    )
    return paths
