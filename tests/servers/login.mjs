// Node.js clients that log in at a proxy: node login.mjs PROXY SOCKS URL, with NODE_USE_ENV_PROXY=1 and HTTPS_PROXY set.
//
// Prints one JSON line: for each client the status of the answer, or why there is none.
import https from 'node:https';
import { HttpsProxyAgent } from 'https-proxy-agent';
import { SocksProxyAgent } from 'socks-proxy-agent';

const [proxy, socks, url] = process.argv.slice(2);

const get = (agent) =>
  new Promise((resolve, reject) => {
    const asked = https.get(url, agent ? { agent } : {}, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    asked.on('error', reject);
  });

const clients = {
  fetch: async () => (await fetch(url)).status,
  https: () => get(),
  undici: async () => {
    // Not before: it puts a dispatcher of its own where Node's fetch takes the one that heeds the environment.
    const { ProxyAgent, request } = await import('undici');
    return (await request(url, { dispatcher: new ProxyAgent(proxy) })).statusCode;
  },
  'https-proxy-agent': () => get(new HttpsProxyAgent(proxy)),
  'socks-proxy-agent': () => get(new SocksProxyAgent(socks)),
};

const seen = {};
for (const [name, ask] of Object.entries(clients)) {
  seen[name] = await ask().catch((error) => {
    const told = [];
    for (let one = error; one; one = one.cause) told.push(`${one.message} ${one.statusCode ?? ''}`.trim());
    return told.join(': ');
  });
}
console.log(JSON.stringify(seen));
process.exit(0);
