// A real authorization server for the tests: npm `oidc-provider` with single-use refresh tokens, whose reuse
// revokes the whole grant, short access tokens, and a resource that accepts only live ones.
//
// usage: node oidc-provider.mjs '{"access_token_ttl": 4, "clients": [{"id": "…", "auth": "…", "secret": "…", "jwks": {…}}]}'
//
// Prints one JSON line when ready and ends when its standard input ends. The first refresh token of each client
// is issued through the provider's own models. What was counted and issued can be read at /_state. With
// "dpop": true tokens are bound to a key and every proof must bear a nonce. With
// "interactive": true a person logs in: clients may use the code flow on loopback and the device flow. With
// "mtls": {"cert": PEM, "key": PEM, "ca": PEM} the issuer is on TLS and asks nobody for a certificate, its
// `mtls_endpoint_aliases` and the resource are on a second port that does, and tokens of clients that authenticate by
// certificate are bound to it.

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { Provider } from 'oidc-provider';

const options = JSON.parse(process.argv[2] ?? '{}');
const accessTokenTtl = options.access_token_ttl ?? 4;
const scope = 'openid offline_access';

const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code';

const state = { token_posts: 0, revocations: 0, userinfo: {}, posts_by_refresh_token: {}, errors: [], resource: { ok: 0, refused: 0 }, shown: { token: {}, resource: {} }, issued: [] };
const fingerprint = (text) => createHash('sha256').update(text).digest('hex');

/// The certificate that the other side of a connection showed, and its thumbprint as tokens have it.
function peer(socket) {
  const certificate = socket.getPeerX509Certificate?.();
  return certificate && { certificate, thumbprint: createHash('sha256').update(certificate.raw).digest('base64url') };
}

function countShown(place, socket) {
  const shown = peer(socket)?.thumbprint ?? 'none';
  state.shown[place][shown] = (state.shown[place][shown] ?? 0) + 1;
}

const mtls = {
  enabled: options.mtls !== undefined,
  certificateBoundAccessTokens: true,
  tlsClientAuth: true,
  selfSignedTlsClientAuth: true,
  getCertificate: (ctx) => peer(ctx.socket)?.certificate.toString(),
  certificateAuthorized: (ctx) => ctx.socket.authorized,
  certificateSubjectMatches: (ctx, property, expected) =>
    property === 'tls_client_auth_san_dns' && peer(ctx.socket)?.certificate.checkHost(expected) !== undefined,
};

function clientMetadata({ id, auth, secret, jwks, san_dns }) {
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
    ...(options.mtls ? { tls_client_certificate_bound_access_tokens: true, tls_client_auth_san_dns: san_dns } : {}),
    ...(options.dpop ? { dpop_bound_access_tokens: true } : {}),
  };
}

function signingKeys() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', kid: 'test' }] };
}

function newProvider(issuer, aliases) {
  const provider = new Provider(issuer, {
    clients: options.clients.map(clientMetadata),
    jwks: signingKeys(),
    cookies: { keys: [randomBytes(16).toString('hex')] },
    scopes: ['openid', 'offline_access'],
    rotateRefreshToken: true,
    issueRefreshToken: async () => true,
    ttl: { AccessToken: accessTokenTtl, RefreshToken: 3600, Grant: 3600, IdToken: 60 },
    findAccount: async (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    ...(aliases ? { clientAuthMethods: ['tls_client_auth', 'self_signed_tls_client_auth'] } : {}),
    pkce: { required: () => true },
    discovery: aliases
      ? { mtls_endpoint_aliases: { token_endpoint: `${aliases}/token`, revocation_endpoint: `${aliases}/token/revocation` } }
      : {},
    features: {
      devInteractions: { enabled: options.interactive ?? false },
      deviceFlow: { enabled: options.interactive ?? false },
      revocation: { enabled: true, allowedPolicy: async () => true },
      mTLS: mtls,
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
  countShown('token', ctx.socket);
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
  // RFC 8705 3: good only on a connection that shows the certificate it is bound to.
  const bound = token?.['x5t#S256'];
  if (options.mtls) countShown('resource', request.socket);
  if (!token?.isValid || (options.mtls && !bound) || (bound && bound !== peer(request.socket)?.thumbprint)) {
    state.resource.refused += 1;
    response.writeHead(401, { 'WWW-Authenticate': 'Bearer error="invalid_token"', 'Content-Type': 'application/json' });
    response.end('{"error":"invalid_token"}');
    return;
  }
  state.resource.ok += 1;
  response.writeHead(200, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify({ account: token.accountId, token: fingerprint(value) }));
}

const listening = (server) =>
  new Promise((resolve) => server.listen(options.port ?? 0, '127.0.0.1', () => resolve(server.address().port)));

const server = createServer();
const tls = options.mtls && [
  createTlsServer(options.mtls),
  createTlsServer({ ...options.mtls, requestCert: true, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] }),
];

async function start() {
  const origin = `http://127.0.0.1:${await listening(server)}`;
  const [issuer, aliases] = tls
    ? (await Promise.all(tls.map(listening))).map((port) => `https://127.0.0.1:${port}`)
    : [origin, undefined];
  const provider = newProvider(issuer, aliases);
  const oauth = provider.callback();
  for (const each of [server, ...(tls ?? [])]) {
    each.keepAliveTimeout = 60_000;
    each.on('request', (request, response) => answer(provider, oauth, request, response));
  }
  const refreshTokens = {};
  for (const { id } of options.clients) refreshTokens[id] = await firstRefreshToken(provider, id);
  const ready = { origin, issuer, aliases, token_endpoint: `${issuer}/token`, refresh_tokens: refreshTokens };
  process.stdout.write(`${JSON.stringify(ready)}\n`);
}

function answer(provider, oauth, request, response) {
  if (request.url === '/_state') {
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify(state));
  } else if (request.url.startsWith('/resource')) {
    resource(provider, request, response).catch((error) => response.destroy(error));
  } else {
    oauth(request, response);
  }
}

await start();
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
