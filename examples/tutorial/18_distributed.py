"""18. Two services, one trace: the caller sends two headers, the other side takes them up.

The headers are W3C Trace Context's (`traceparent`), which other languages and other libraries know as well. The
second service is a process of its own: this file again, started with the argument "warehouse".
"""

import json
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import mlflow_fasttrace as mlflow
from mlflow_fasttrace.entities import SpanType
from tutorial import show, tracking_uri

mlflow.set_tracking_uri(tracking_uri())

# ---- the second service


@mlflow.trace(span_type=SpanType.TOOL)
def look_up(item):
    return {"tea": 12, "sugar": 0}[item]


class Warehouse(BaseHTTPRequestHandler):
    def do_GET(self):
        item = self.path.strip("/")
        # What is recorded inside of this block belongs to the caller's trace, under the caller's span.
        with mlflow.tracing.set_tracing_context_from_http_request_headers(self.headers):
            with mlflow.start_span("warehouse") as span:
                span.set_inputs({"item": item})
                answer = {"item": item, "stock": look_up(item)}
                span.set_outputs(answer)
            # Only because the caller reads the trace as soon as it has the answer.
            mlflow.flush_trace_async_logging()
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def serve():
    server = HTTPServer(("127.0.0.1", 0), Warehouse)
    print(server.server_address[1], flush=True)
    server.handle_request()  # one is enough here, then the service ends


# ---- the first service


class Shop:
    def __init__(self, warehouse_url):
        self.warehouse_url = warehouse_url

    @mlflow.trace(span_type=SpanType.TOOL)
    def ask_warehouse(self, item):
        # The current span's trace and id, as headers: they go with any request, by any client.
        headers = mlflow.tracing.get_tracing_context_headers_for_http_request()
        request = urllib.request.Request(f"{self.warehouse_url}/{item}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["stock"]

    @mlflow.trace(span_type=SpanType.AGENT)
    def order(self, item):
        return "sent" if self.ask_warehouse(item) else "sold out"


def main():
    mlflow.set_experiment("Tutorial 18")  # the trace's, and so that of all services
    command = [sys.executable, __file__, "warehouse"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as warehouse:
        port = int(warehouse.stdout.readline())
        print(Shop(f"http://127.0.0.1:{port}").order("tea"))
    mlflow.flush_trace_async_logging()
    show(mlflow.get_trace(mlflow.get_last_active_trace_id()), "inputs", "outputs")


if sys.argv[1:] == ["warehouse"]:
    serve()
else:
    main()
