"""The four proxies, each set up for the same job and tuned for it: replace Authorization by the token and pass the
request on over kept connections; and a relay of bytes, which shows how much of that the kernel takes. No line a request is
logged, but in bearward's second entry. Metrics are on in bearward and in Envoy, which has them always."""

import json
import os
import resource
import shutil
import subprocess


class Setup:
    """What a configuration is made from."""

    def __init__(self, folder, token, workers, port, tls_port, origin_port, open_port, upstream_tls=None, http2=False, ca="ca.pem"):
        self.folder, self.token, self.workers = folder, token, workers
        self.port, self.tls_port, self.origin_port, self.open_port = port, tls_port, origin_port, open_port
        self.upstream_tls, self.http2, self.ca = upstream_tls, http2, os.path.join(folder, ca)
        self.cert, self.key = os.path.join(folder, "front.pem"), os.path.join(folder, "front.key")
        self.descriptors = min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) - 200
        # Each may have one to the origin.
        self.connections = self.descriptors // 2
        self.both = os.path.join(folder, "front-both.pem")

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path


def bearward(s, binary=None, logs="access: {enabled: false}, audit: {enabled: false}"):
    url = f"{'https' if s.upstream_tls else 'http'}://127.0.0.1:{s.origin_port}"
    upstream = f"{{urls: ['{url}']"
    if s.upstream_tls:
        upstream += f", tls: {{ca: {{file: {s.ca}}}, server_name: localhost}}, http: {'h2' if s.http2 else 'h1'}"
    routes = f"[{{name: all, upstream: {upstream}}}, credential: api}}]"
    path = s.write("bearward.yaml", f"""version: 1
listeners:
  - {{name: plain, kind: reverse, bind: '127.0.0.1:{s.port}', routes: {routes}}}
  - name: tls
    kind: reverse
    bind: 127.0.0.1:{s.tls_port}
    tls: {{cert: {{file: {s.cert}}}, key: {{file: {s.key}}}}}
    routes: {routes}
credentials: {{api: {{grant: static, token: {{file: {s.folder}/token}}}}}}
store: {{kind: memory}}
admin: {{bind: 'unix:{s.folder}/admin.sock'}}
log: {{level: error, {logs}}}
limits: {{workers: {s.workers}, connections: {s.connections}}}
""")
    return [os.path.abspath(binary or os.environ.get("BEARWARD", "target/dist/bearward")), "run", "-c", path]


def logging(s):
    """bearward with the two logs that it writes by default, each a line a request, to files."""
    return bearward(s, logs=f"access: {{file: {s.folder}/access.log}}, audit: {{file: {s.folder}/audit.log}}")


def nginx(s):
    if s.http2:
        return None
    upstream = "proxy_pass http://origin;"
    if s.upstream_tls:
        upstream = f"""proxy_pass https://origin;
      proxy_ssl_verify on;
      proxy_ssl_trusted_certificate {s.ca};
      proxy_ssl_name localhost;
      proxy_ssl_server_name on;
      proxy_ssl_protocols TLSv1.2 TLSv1.3;"""
    temporary = "\n".join(f"  {kind}_temp_path {s.folder}/nginx-{kind};"
                          for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    path = s.write("nginx.conf", f"""daemon off;
worker_processes {s.workers};
pid {s.folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections {s.descriptors}; }}
http {{
{temporary}
  access_log off;
  keepalive_requests 1000000000;
  upstream origin {{
    server 127.0.0.1:{s.origin_port};
    keepalive 512;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{s.port} backlog=4096;
    listen 127.0.0.1:{s.tls_port} ssl http2 backlog=4096;
    ssl_certificate {s.cert};
    ssl_certificate_key {s.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    http2_max_concurrent_streams 256;
    client_body_buffer_size 64k;
    proxy_buffer_size 32k;
    proxy_buffers 8 32k;
    location / {{
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {s.token}";
      {upstream}
    }}
  }}
}}
""")
    return [shutil.which("nginx"), "-e", "stderr", "-p", s.folder, "-c", path]


def haproxy(s):
    server = f"server origin 127.0.0.1:{s.origin_port} pool-max-conn 512 pool-purge-delay 60s"
    if s.upstream_tls:
        alpn = "h2" if s.http2 else "http/1.1"
        server += f" ssl verify required ca-file {s.ca} verifyhost localhost sni str(localhost) alpn {alpn}"
    path = s.write("haproxy.cfg", f"""global
  nbthread {s.workers}
  maxconn {s.connections}
  tune.bufsize 32768
  ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  http-reuse always
frontend clients
  bind 127.0.0.1:{s.port} backlog 4096
  bind 127.0.0.1:{s.tls_port} backlog 4096 ssl crt {s.both} alpn h2,http/1.1
  http-request set-header Authorization "Bearer {s.token}"
  default_backend origin
backend origin
  {server}
""")
    return [shutil.which("haproxy"), "-db", "-f", path]


def relay(s):
    """HAProxy as a relay of bytes, which neither reads nor changes them: the least that a proxy of this kind can cost."""
    if s.upstream_tls:
        return None
    path = s.write("relay.cfg", f"""global
  nbthread {s.workers}
  maxconn {s.connections}
  tune.bufsize 32768
defaults
  mode tcp
  timeout connect 5s
  timeout client 120s
  timeout server 120s
listen clients
  bind 127.0.0.1:{s.port} backlog 4096
  bind 127.0.0.1:{s.tls_port}
  server origin 127.0.0.1:{s.open_port}
""")
    return [shutil.which("haproxy"), "-db", "-f", path]


TYPE = "type.googleapis.com/envoy.extensions."


def envoy(s):
    def typed(kind, **fields):
        return {"@type": TYPE + kind, **fields}

    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="clients", codec_type="AUTO", generate_request_id=False,
        route_config={"name": "all", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]}]},
        http_filters=[
            {"name": "envoy.filters.http.credential_injector", "typed_config": typed(
                "filters.http.credential_injector.v3.CredentialInjector", overwrite=True, credential={
                    "name": "envoy.http.injected_credentials.generic", "typed_config": typed(
                        "http.injected_credentials.generic.v3.Generic", credential={"name": "token"})})},
            {"name": "envoy.filters.http.router",
             "typed_config": typed("filters.http.router.v3.Router", suppress_envoy_headers=True)}])

    def listener(name, port, **chain):
        filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
        return {"name": name, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{"filters": filters, **chain}]}

    front = {"name": "envoy.transport_sockets.tls", "typed_config": typed(
        "transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"], "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": s.cert}, "private_key": {"filename": s.key}}]})}
    protocol = "http2_protocol_options" if s.http2 else "http_protocol_options"
    limits = {f"max_{what}": s.connections for what in ("connections", "pending_requests", "requests")}
    cluster = {
        "name": "origin", "type": "STATIC", "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
            "upstreams.http.v3.HttpProtocolOptions", explicit_http_config={protocol: {}})},
        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
            "socket_address": {"address": "127.0.0.1", "port_value": s.origin_port}}}}]}]}}
    if s.upstream_tls:
        name = {"san_type": "DNS", "matcher": {"exact": "localhost"}}
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": typed(
            "transport_sockets.tls.v3.UpstreamTlsContext", sni="localhost", common_tls_context={
                "alpn_protocols": ["h2" if s.http2 else "http/1.1"],
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "validation_context": {"trusted_ca": {"filename": s.ca}, "match_typed_subject_alt_names": [name]}})}
    secret = {"name": "token", "generic_secret": {"secret": {"inline_string": f"Bearer {s.token}"}}}
    path = s.write("envoy.json", json.dumps({"static_resources": {
        "secrets": [secret],
        "listeners": [listener("plain", s.port), listener("tls", s.tls_port, transport_socket=front)],
        "clusters": [cluster]}}))
    binary = os.environ.get("ENVOY") or shutil.which("envoy")
    return [binary, "-c", path, "--concurrency", str(s.workers), "-l", "error", "--disable-hot-restart"]


PROXIES = {"bearward": bearward, "logging": logging, "nginx": nginx, "haproxy": haproxy, "envoy": envoy, "relay": relay}


def versions():
    """What each program says of itself."""
    def first(*command):
        out = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in (out.stdout + out.stderr).splitlines() if line.strip()]
        return lines[0].strip() if lines else "?"
    return {
        "bearward": first(os.environ.get("BEARWARD", "target/dist/bearward"), "--version"),
        "nginx": first("nginx", "-v").removeprefix("nginx version: "),
        "haproxy": first("haproxy", "-v").split(" - ")[0],
        "envoy": "Envoy " + first(os.environ.get("ENVOY") or "envoy", "--version").split("/")[-4:][0],
        "wrk": " ".join(first("wrk", "-v").split()[:2]),
        "h2load": first("h2load", "--version"),
        "rustc": first("rustc", "--version"),
    }
