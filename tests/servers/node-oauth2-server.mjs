// A real authorization server for the tests: npm `@node-oauth/oauth2-server` with single-use refresh tokens, whose
// reuse revokes the family; also client_credentials and password. It takes Basic as it is, without decoding it.
//
// usage: node node-oauth2-server.mjs '{"access_token_ttl": 2, "client_id": "…", "client_secret": "…",
//                                      "username": "…", "password": "…"}'
//
// Prints one JSON line when ready and ends when its standard input ends. What was counted and issued can be read
// at /_state.

import { createHash, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import OAuth2Server from '@node-oauth/oauth2-server';

const options = JSON.parse(process.argv[2]);
const ttl = options.access_token_ttl ?? 2;
const state = {
  token_posts: 0,
  posts_by_refresh_token: {},
  tokens_by_grant: {},
  errors: [],
  resource: { ok: 0, refused: 0 },
  issued: [],
};
const fingerprint = (text) => createHash('sha256').update(text).digest('hex');
const grants = ['refresh_token', 'client_credentials', 'password'];
const client = { id: options.client_id, grants };
const user = { id: options.username };
const machine = { id: 'machine' };
const byAccess = new Map();
const byRefresh = new Map();

function revokeFamily(family) {
  for (const token of byAccess.values()) if (token.family === family) token.revoked = true;
}

// The family of the refresh token that is being spent, from one step of a request to the next.
const families = new WeakMap();

const model = {
  async getClient(id, secret) {
    return id === options.client_id && secret === options.client_secret ? { ...client } : null;
  },
  async getRefreshToken(value) {
    const token = byRefresh.get(value);
    if (!token || token.revoked) return null;
    if (token.spent) {
      revokeFamily(token.family);
      return null;
    }
    const bearer = { ...user };
    families.set(bearer, token.family);
    return { ...token, client, user: bearer };
  },
  async revokeToken({ refreshToken }) {
    const token = byRefresh.get(refreshToken);
    if (!token || token.spent) return false;
    token.spent = true;
    return true;
  },
  async saveToken(token, _client, bearer) {
    const saved = { ...token, client, user: bearer, family: families.get(bearer) ?? randomUUID() };
    byAccess.set(token.accessToken, saved);
    if (token.refreshToken) byRefresh.set(token.refreshToken, saved);
    state.issued.push(...[token.accessToken, token.refreshToken].filter(Boolean));
    return saved;
  },
  async getAccessToken(value) {
    const token = byAccess.get(value);
    return token && !token.revoked ? token : null;
  },
  async getUser(name, password) {
    return name === options.username && password === options.password ? { ...user } : null;
  },
  async getUserFromClient() {
    return { ...machine };
  },
  async validateScope(_user, _client, scope) {
    return scope ?? [];
  },
};

const oauth = new OAuth2Server({ model, accessTokenLifetime: ttl, refreshTokenLifetime: 3600 });

async function token(request, body) {
  const form = Object.fromEntries(new URLSearchParams(body));
  const answer = new OAuth2Server.Response({});
  const asked = new OAuth2Server.Request({
    headers: request.headers,
    method: request.method,
    query: {},
    body: form,
  });
  state.token_posts += 1;
  if (form.refresh_token) {
    const key = fingerprint(form.refresh_token);
    state.posts_by_refresh_token[key] = (state.posts_by_refresh_token[key] ?? 0) + 1;
  }
  try {
    await oauth.token(asked, answer);
    state.tokens_by_grant[form.grant_type] = (state.tokens_by_grant[form.grant_type] ?? 0) + 1;
  } catch (error) {
    state.errors.push({ error: error.name, description: error.message });
  }
  return answer;
}

async function resource(request) {
  const answer = new OAuth2Server.Response({});
  const asked = new OAuth2Server.Request({ headers: request.headers, method: 'GET', query: {} });
  try {
    const { accessToken } = await oauth.authenticate(asked, answer);
    state.resource.ok += 1;
    answer.status = 200;
    answer.body = { token: fingerprint(accessToken) };
  } catch (error) {
    state.resource.refused += 1;
    answer.status = error.code ?? 500;
    answer.headers = { 'www-authenticate': `Bearer error="${error.name}"` };
    answer.body = { error: error.name };
  }
  return answer;
}

async function serve(request, response) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let answer = { status: 200, headers: {}, body: state };
  if (request.url === '/token') answer = await token(request, Buffer.concat(chunks).toString());
  else if (request.url !== '/_state') answer = await resource(request);
  response.writeHead(answer.status, { ...answer.headers, 'content-type': 'application/json' });
  response.end(JSON.stringify(answer.body));
}

const server = createServer((request, response) => {
  serve(request, response).catch((error) => response.destroy(error));
});
server.keepAliveTimeout = 60_000;
server.listen(options.port ?? 0, '127.0.0.1', async () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  const first = { accessToken: randomUUID(), refreshToken: randomUUID(), accessTokenExpiresAt: new Date(0) };
  await model.saveToken(first, client, { ...user });
  const ready = { origin, token_endpoint: `${origin}/token`, refresh_token: first.refreshToken };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
