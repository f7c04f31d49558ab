"""`requests` through a proxy: `proxied.py PROXY URL` prints the status of the answer, or why there is none.

The CA is that of REQUESTS_CA_BUNDLE. `socks5h://` is PySocks.
"""

import os
import sys

import requests

proxy, url = sys.argv[1:]
session = requests.Session()
# Else what the environment says goes before what is given here.
session.trust_env = False
ca = os.environ.get("REQUESTS_CA_BUNDLE", True)
try:
    print(session.get(url, proxies={"http": proxy, "https": proxy}, verify=ca, timeout=20).status_code)
except requests.exceptions.RequestException as error:
    print(f"{type(error).__name__}: {error}")
