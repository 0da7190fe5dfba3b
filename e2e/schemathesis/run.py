"""Schemathesis against a route that a RequestValidationPolicy protects. The backend accepts everything and keeps what it was given, so
each request that is wrong and reaches it is a false accept of the gateway's.

python3 run.py GATEWAY [--examples N] [--seed N]

GATEWAY is the binary. Needs the command `st` of the package schemathesis.
"""

import argparse
import http.server
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
DOCUMENT = HERE / "openapi.yaml"
CHECKS = "negative_data_rejection,positive_data_acceptance,missing_required_header,unsupported_method,not_a_server_error"

OBJECTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: nebula
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: http, protocol: HTTP, port: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: shop, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata:
  name: shop
  annotations: {nebula.dev/endpoints: "127.0.0.1:BACKEND"}
spec: {ports: [{port: 80}]}
---
apiVersion: nebula.dev/v1alpha1
kind: RequestValidationPolicy
metadata: {name: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}]
  openapi: {configMapRef: {name: shop, key: openapi.yaml}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: shop}
data:
  openapi.yaml: |
"""


class Backend(http.server.BaseHTTPRequestHandler):
    """Accepts everything."""

    protocol_version = "HTTP/1.1"
    given = []

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.given.append((self.command, self.path, body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_TRACE = do_QUERY = answer

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until_ready(port, process):
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1).status == 200:
                return
        except OSError:
            time.sleep(0.05)
    sys.exit("the gateway does not become ready")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gateway")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int)
    arguments = parser.parse_args()
    if shutil.which("st") is None:
        sys.exit("the command st is missing: pip install schemathesis")

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    document = "".join(f"    {line}\n" for line in DOCUMENT.read_text().splitlines())
    objects = OBJECTS.replace("BACKEND", str(server.server_port)) + document
    http_port, admin, telemetry = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "shop.yaml").write_text(objects)
        command = [arguments.gateway, "--config", folder, "--port-map", f"8080={http_port}"]
        command += ["--admin-address", f"127.0.0.1:{admin}", "--telemetry-address", f"127.0.0.1:{telemetry}"]
        gateway = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_until_ready(telemetry, gateway)
            st = ["st", "run", str(DOCUMENT), "--url", f"http://127.0.0.1:{http_port}", "--checks", CHECKS]
            st += ["--mode", "all", "--phases", "examples,coverage,fuzzing", "--continue-on-failure"]
            st += ["--max-examples", str(arguments.examples)]
            st += ["--seed", str(arguments.seed)] if arguments.seed is not None else []
            result = subprocess.run(st, cwd=folder, check=False).returncode
        finally:
            gateway.terminate()
            gateway.wait()
    print(f"{len(Backend.given)} requests reached the backend")
    if result == 0 and not Backend.given:
        sys.exit("none reached it: nothing was tested")
    sys.exit(result)


if __name__ == "__main__":
    main()
