"""gRPC from end to end: `serve [CERT KEY]` prints its port; `call ADDRESS [CA]` makes every kind of call.

Messages are bytes as they are: no protocol buffers.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "bearward.Test"
cancelled = threading.Event()


def metadata(context, name):
    return dict(context.invocation_metadata()).get(name, "")


def unary(request, context):
    context.set_trailing_metadata((("x-trailing", "t"),))
    if request == b"token":
        return metadata(context, "authorization").encode()
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "told so: 100 % é")
    if request == b"slow":
        time.sleep(2)
    if request == b"wait":
        context.add_callback(cancelled.set)
        time.sleep(3)
    if request == b"was cancelled":
        return b"yes" if cancelled.wait(5) else b"no"
    return request[::-1]


def server_stream(request, context):
    for number in range(int(request)):
        yield str(number).encode() * 1000


def client_stream(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def both(requests, context):
    for request in requests:
        yield request.upper()


def serve(files):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
        "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    if files:
        cert, key = (open(path, "rb").read() for path in files)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(((key, cert),)))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # Its caller closes its input when it is done.
    sys.stdin.read()
    server.stop(0)


def call(address, files):
    if files:
        credentials = grpc.ssl_channel_credentials(open(files[0], "rb").read())
        channel = grpc.secure_channel(address, credentials)
    else:
        channel = grpc.insecure_channel(address)
    path = f"/{SERVICE}/"
    unary_call = channel.unary_unary(path + "Unary")
    mine = (("authorization", "Bearer of-the-client"), ("x-mine", "1"))
    answer, said = unary_call.with_call(b"abc", metadata=mine, timeout=20)
    print("unary", answer.decode(), said.code().name, dict(said.trailing_metadata())["x-trailing"])
    print("token", unary_call(b"token", metadata=mine, timeout=20).decode())
    try:
        unary_call(b"fail", timeout=20)
    except grpc.RpcError as error:
        print("failure", error.code().name, error.details())
    try:
        channel.unary_unary(path + "Nothing")(b"", timeout=20)
    except grpc.RpcError as error:
        print("unknown", error.code().name)
    stream = channel.unary_stream(path + "ServerStream")(b"200", timeout=20)
    print("server", sum(len(piece) for piece in stream), stream.code().name)
    pieces = (b"x" * 10_000 for _ in range(300))
    print("client", channel.stream_unary(path + "ClientStream")(pieces, timeout=20).decode())
    talk(channel, path)
    try:
        unary_call(b"slow", timeout=0.5)
    except grpc.RpcError as error:
        print("deadline", error.code().name)
    # Without a deadline that the server would know by itself.
    waiting = unary_call.future(b"wait")
    time.sleep(0.5)
    waiting.cancel()
    print("cancelled", unary_call(b"was cancelled", timeout=20).decode())
    started = [unary_call.future(str(number).encode(), timeout=20) for number in range(50)]
    print("many", len({call.result() for call in started}))


def talk(channel, path):
    """Each word is said when the one before was answered."""
    answered = threading.Semaphore(1)

    def words():
        for word in (b"one", b"two", b"three"):
            answered.acquire()
            yield word

    said = []
    for answer in channel.stream_stream(path + "Both")(words(), timeout=20):
        said.append(answer.decode())
        answered.release()
    print("both", " ".join(said))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        call(sys.argv[2], sys.argv[3:])
