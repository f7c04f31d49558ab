"""The programs that are measured: how each is configured to do the same. Standard library only."""

import json
import os
import shutil
import subprocess

TOKEN = "measured-token"
TYPE = "type.googleapis.com/envoy.extensions."


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def bearward(folder, port, source_port, api_port):
    """Both: a tunnel to the source, an interception of the API."""
    path = write(folder, "bearward.yaml", f"""version: 1
listeners:
  - name: egress
    kind: egress
    bind: 127.0.0.1:{port}
    intercept: {{ca_cert: {{file: {folder}/ca.crt}}, ca_key: {{file: {folder}/ca.key}}}}
    egress_network: {{allow_private: ["127.0.0.0/8"]}}
    rules:
      - {{match: {{hosts: ["127.0.0.1"], ports: [{source_port}]}}, action: tunnel}}
      - match: {{hosts: [localhost], ports: [{api_port}]}}
        action: intercept
        credential: api
        tls: {{ca: {{file: {folder}/root.pem}}}}
credentials:
  api: {{grant: static, token: {{file: {folder}/token}}, allowed_upstreams: ["https://localhost:{api_port}"]}}
store: {{kind: memory}}
admin: {{bind: 'unix:{folder}/admin.sock'}}
log: {{level: error, access: {{enabled: false}}, audit: {{enabled: false}}}}
limits: {{workers: 1}}
""")
    return [os.environ["BEARWARD"], "run", "-c", path]


def relay(folder, port, source_port, _):
    """HAProxy in TCP mode: no name, no rule, no CONNECT."""
    path = write(folder, "haproxy.cfg", f"""global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend relay
  bind 127.0.0.1:{port}
  default_backend source
backend source
  server source 127.0.0.1:{source_port}
""")
    return [shutil.which("haproxy"), "-db", "-f", path]


def mitmproxy(folder, port, _, api_port):
    """A forward proxy that makes certificates as well; a script of two lines sets the field."""
    script = write(folder, "inject.py",
                   f'def request(flow):\n    flow.request.headers["Authorization"] = "Bearer {TOKEN}"\n')
    return [os.environ["MITMDUMP"], "-q", "--listen-host", "127.0.0.1", "-p", str(port), "-s", script, "--set",
            f"confdir={folder}/mitm", "--set", f"ssl_verify_upstream_trusted_ca={folder}/root.pem", "--set", "flow_detail=0"]


def envoy(folder, port, _, api_port):
    """No forward proxy: it ends TLS with a certificate for the one name, sets the field and speaks TLS upstream."""
    def typed(kind, **fields):
        return {"@type": TYPE + kind, **fields}

    injector = typed("filters.http.credential_injector.v3.CredentialInjector", overwrite=True, credential={
        "name": "envoy.http.injected_credentials.generic",
        "typed_config": typed("http.injected_credentials.generic.v3.Generic", credential={"name": "token"})})
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="clients", codec_type="AUTO", generate_request_id=False,
        route_config={"name": "all", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "api"}}]}]},
        http_filters=[
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
            {"name": "envoy.filters.http.router",
             "typed_config": typed("filters.http.router.v3.Router", suppress_envoy_headers=True)}])
    front = {"name": "envoy.transport_sockets.tls", "typed_config": typed(
        "transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context={
            "alpn_protocols": ["h2", "http/1.1"], "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": f"{folder}/front.pem"},
                                  "private_key": {"filename": f"{folder}/front.key"}}]})}
    back = {"name": "envoy.transport_sockets.tls", "typed_config": typed(
        "transport_sockets.tls.v3.UpstreamTlsContext", sni="localhost", common_tls_context={
            "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
            "validation_context": {"trusted_ca": {"filename": f"{folder}/root.pem"}, "match_typed_subject_alt_names": [
                {"san_type": "DNS", "matcher": {"exact": "localhost"}}]}})}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": api_port}}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    path = write(folder, "envoy.json", json.dumps({"static_resources": {
        "secrets": [{"name": "token", "generic_secret": {"secret": {"inline_string": f"Bearer {TOKEN}"}}}],
        "listeners": [{"name": "front", "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                       "filter_chains": [{"filters": filters, "transport_socket": front}]}],
        "clusters": [{"name": "api", "type": "STATIC", "transport_socket": back, "load_assignment": {
            "cluster_name": "api", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}}]}}))
    return [os.environ["ENVOY"], "-c", path, "--concurrency", "1", "-l", "error", "--disable-hot-restart"]


def certificates(folder):
    """An authority of the upstream, one of Envoy's front, and a certificate of each for `localhost`."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], check=True, cwd=folder, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    write(folder, "san", "subjectAltName=DNS:localhost\n")
    for authority, leaf in (("root", "api"), ("frontroot", "front")):
        openssl("req", "-x509", *key, "-keyout", f"{authority}.key", "-out", f"{authority}.pem", "-subj",
                f"/CN={authority}", "-days", "30")
        openssl("req", *key, "-keyout", f"{leaf}.key", "-out", f"{leaf}.csr", "-subj", "/CN=localhost")
        openssl("x509", "-req", "-in", f"{leaf}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-out",
                f"{leaf}.pem", "-days", "30", "-extfile", "san")
    write(folder, "token", TOKEN)
    subprocess.run([os.environ["BEARWARD"], "ca", "init", "--permit", "localhost", "--cert", f"{folder}/ca.crt", "--key",
                    f"{folder}/ca.key"], check=True, stdout=subprocess.DEVNULL)


def versions():
    """What each program says of itself."""
    def first(*command):
        out = subprocess.run(command, capture_output=True, text=True)
        lines = [line for line in (out.stdout + out.stderr).splitlines() if line.strip()]
        return lines[0].strip() if lines else "?"
    return [
        first(os.environ["BEARWARD"], "--version"),
        first("haproxy", "-v").split(" - ")[0],
        first(os.environ["MITMDUMP"], "--version").replace("Mitmproxy:", "mitmproxy"),
        "Envoy " + first(os.environ["ENVOY"], "--version").split("/")[-4:][0],
    ]
