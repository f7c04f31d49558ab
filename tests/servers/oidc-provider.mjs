// A real authorization server for the tests: npm `oidc-provider` with single-use refresh tokens, whose reuse
// revokes the whole grant, short access tokens, and a resource that accepts only live ones.
//
// usage: node oidc-provider.mjs '{"access_token_ttl": 4, "clients": [{"id": "…", "auth": "…", "secret": "…", "jwks": {…}}]}'
//
// Prints one JSON line when ready and ends when its standard input ends. The first refresh token of each client
// is issued through the provider's own models. What was counted and issued can be read at /_state. With
// "dpop": true tokens are bound to a key and every proof must bear a nonce. With
// "interactive": true a person logs in: clients may use the code flow on loopback and the device flow.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const options = JSON.parse(process.argv[2] ?? '{}');
const accessTokenTtl = options.access_token_ttl ?? 4;
const scope = 'openid offline_access';

const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code';

const state = { token_posts: 0, revocations: 0, userinfo: {}, posts_by_refresh_token: {}, errors: [], resource: { ok: 0, refused: 0 }, issued: [] };
const fingerprint = (text) => createHash('sha256').update(text).digest('hex');

function clientMetadata({ id, auth, secret, jwks }) {
  return {
    client_id: id,
    client_secret: secret,
    jwks,
    token_endpoint_auth_method: auth,
    grant_types: ['authorization_code', 'refresh_token', ...(options.interactive ? [deviceGrant] : [])],
    response_types: ['code'],
    ...(options.interactive
      ? { application_type: 'native', redirect_uris: ['http://127.0.0.1/callback'] }
      : { redirect_uris: ['https://client.example/callback'] }),
    scope,
    ...(options.dpop ? { dpop_bound_access_tokens: true } : {}),
  };
}

function signingKeys() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: 'test' }] };
}

function newProvider(issuer) {
  const provider = new Provider(issuer, {
    clients: options.clients.map(clientMetadata),
    jwks: signingKeys(),
    cookies: { keys: [randomBytes(16).toString('hex')] },
    scopes: ['openid', 'offline_access'],
    rotateRefreshToken: true,
    issueRefreshToken: async () => true,
    ttl: { AccessToken: accessTokenTtl, RefreshToken: 3600, Grant: 3600, IdToken: 60 },
    findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: options.interactive ?? false },
      deviceFlow: { enabled: options.interactive ?? false },
      revocation: { enabled: true, allowedPolicy: async () => true },
      dPoP: { enabled: options.dpop ?? false, nonceSecret: randomBytes(32), requireNonce: () => options.dpop ?? false },
    },
  });
  provider.use(countTokenRequests);
  return provider;
}

async function countTokenRequests(ctx, next) {
  await next();
  if (ctx.oidc?.route === 'revocation') state.revocations += 1;
  if (ctx.oidc?.route === 'userinfo') state.userinfo[ctx.status] = (state.userinfo[ctx.status] ?? 0) + 1;
  if (ctx.oidc?.route !== 'token') return;
  state.token_posts += 1;
  const spent = ctx.oidc.params?.refresh_token;
  if (spent) {
    const key = fingerprint(spent);
    state.posts_by_refresh_token[key] = (state.posts_by_refresh_token[key] ?? 0) + 1;
  }
  const { access_token: access, refresh_token: refresh, id_token: id, error } = ctx.body ?? {};
  state.issued.push(...[access, refresh, id].filter(Boolean));
  if (error) state.errors.push({ error, client: ctx.oidc.client?.clientId ?? null });
}

async function firstRefreshToken(provider, clientId) {
  const client = await provider.Client.find(clientId);
  const accountId = `user-of-${clientId}`;
  const grant = new provider.Grant({ accountId, clientId });
  grant.addOIDCScope(scope);
  const token = new provider.RefreshToken({
    client,
    accountId,
    grantId: await grant.save(),
    gty: 'authorization_code',
    authTime: Math.floor(Date.now() / 1000),
    claims: {},
    scope,
  });
  const value = await token.save();
  state.issued.push(value);
  return value;
}

async function resource(provider, request, response) {
  const [scheme, value] = (request.headers.authorization ?? '').split(' ');
  const token = scheme === 'Bearer' && value ? await provider.AccessToken.find(value) : undefined;
  request.resume();
  if (!token?.isValid) {
    state.resource.refused += 1;
    response.writeHead(401, { 'WWW-Authenticate': 'Bearer error="invalid_token"', 'Content-Type': 'application/json' });
    response.end('{"error":"invalid_token"}');
    return;
  }
  state.resource.ok += 1;
  response.writeHead(200, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify({ account: token.accountId, token: fingerprint(value) }));
}

const server = createServer();
server.keepAliveTimeout = 60_000;
server.listen(options.port ?? 0, '127.0.0.1', async () => {
  const origin = `http://127.0.0.1:${server.address().port}`;
  const provider = newProvider(origin);
  const oauth = provider.callback();
  server.on('request', (request, response) => {
    if (request.url === '/_state') {
      response.writeHead(200, { 'Content-Type': 'application/json' });
      response.end(JSON.stringify(state));
    } else if (request.url.startsWith('/resource')) {
      resource(provider, request, response).catch((error) => response.destroy(error));
    } else {
      oauth(request, response);
    }
  });
  const refreshTokens = {};
  for (const { id } of options.clients) refreshTokens[id] = await firstRefreshToken(provider, id);
  const ready = { origin, issuer: origin, token_endpoint: `${origin}/token`, refresh_tokens: refreshTokens };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
});

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
