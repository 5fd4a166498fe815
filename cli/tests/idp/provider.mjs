// An OIDC provider for tests: node-oidc-provider (OpenID certified) with a few people, three signing algorithms and
// a side door under /_test for what no honest provider does.
//
// Prints one line of JSON when it listens: {"issuer": "http://127.0.0.1:PORT"}. Ends when its standard input closes.
//
//   POST /_test/mint    {alg?, kid?, header?, claims?}  a token with exactly these claims over sound defaults
//                       (a claim of null is left out), signed with the provider's own key
//   POST /_test/rotate  new keys in front of the old ones; ?drop=1: the old ones leave the set
//   POST /_test/jwks    ?down=1 | ?down=0: the key set answers 503 from now on, or works again
//   POST /_test/token   ?answer=ERROR: the token endpoint refuses with this OAuth error; ?answer=503: it is down;
//                       ?answer=hold: it does not answer before the next of these; ?answer=bare: it gives no refresh
//                       token; ?answer=well: as always
//   POST /_test/id      {claims?, header?, forge?}  from now on ID tokens have these claims over their true ones, and
//                       forge: a signature by somebody else's key; without a body they are true again
//   GET  /_test/stats   {"jwks": requests for the key set so far, "token": those to the token endpoint}
//
// GPRXY_TEST_CLOCK_AHEAD=SECONDS: the provider's clock is ahead of this computer's.
import http from 'node:http';
import { Provider, errors } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';
import { CompactSign, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK } from 'jose';

// Standard output is for one line, and nobody reads it afterwards.
console.info = console.error;

const AHEAD = Number(process.env.GPRXY_TEST_CLOCK_AHEAD ?? 0) * 1000;
if (AHEAD) {
  const real = Date.now;
  Date.now = () => real() + AHEAD;
}

const AUDIENCE = 'gprxy-test';
const PEOPLE = {
  alice: { email: 'alice@corp.example', email_verified: true, roles: ['reader'] },
  bob: { email: 'bob@corp.example', email_verified: true, roles: ['writer'] },
  carol: { email: 'carol@corp.example', email_verified: true, roles: [] },
  // Enough groups to make a token of some 17 KB, as a person in many groups has one.
  grace: {
    email: 'grace@corp.example',
    email_verified: true,
    roles: ['reader'],
    groups: Array.from({ length: 400 }, (_, i) => `cn=department-${i},ou=groups`),
  },
};
const RESOURCES = {
  'urn:gprxy:rs256': { audience: AUDIENCE, alg: 'RS256' },
  'urn:gprxy:es256': { audience: AUDIENCE, alg: 'ES256' },
  'urn:gprxy:eddsa': { audience: AUDIENCE, alg: 'EdDSA' },
  'urn:elsewhere': { audience: 'somebody-else', alg: 'RS256' },
};

async function freshKeys() {
  const kinds = { RS256: { modulusLength: 2048 }, ES256: {}, EdDSA: { crv: 'Ed25519' } };
  return Promise.all(
    Object.entries(kinds).map(async ([alg, options]) => {
      const { privateKey } = await generateKeyPair(alg, { extractable: true, ...options });
      const jwk = await exportJWK(privateKey);
      return { ...jwk, alg, use: 'sig', kid: `${alg}-${(await calculateJwkThumbprint(jwk)).slice(0, 10)}` };
    }),
  );
}

const adapter = createMemoryAdapter(); // outlives a rotation, and with it sessions and grants
function provider(issuer, keys) {
  const lifetime = 3600; // longer than a whole test run
  return new Provider(issuer, {
    adapter,
    jwks: { keys },
    cookies: { keys: ['for-tests-only'] },
    scopes: ['openid', 'offline_access', 'sql'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    clients: [
      {
        client_id: 'gprxy-cli',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        redirect_uris: ['http://127.0.0.1/callback', 'http://localhost/callback'],
        grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
        response_types: ['code'],
      },
      {
        client_id: 'nightly-batch',
        client_secret: 'nightly-batch-secret-for-tests',
        token_endpoint_auth_method: 'client_secret_basic',
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
      },
    ],
    pkce: { required: () => true },
    rotateRefreshToken: true,
    issueRefreshToken: async (_ctx, client, code) =>
      client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
    findAccount: async (_ctx, id) =>
      PEOPLE[id] && { accountId: id, claims: async () => ({ sub: id, ...PEOPLE[id] }) },
    extraTokenClaims: async (_ctx, token) =>
      token.kind === 'ClientCredentials' ? { roles: ['reader'] } : { preferred_username: token.accountId, ...PEOPLE[token.accountId] },
    ttl: { AccessToken: lifetime, ClientCredentials: lifetime, IdToken: lifetime, RefreshToken: 86400,
           DeviceCode: 600, Interaction: 600, Session: 86400, Grant: 86400 },
    features: {
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      clientCredentials: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: async () => 'urn:gprxy:rs256',
        useGrantedResource: async () => true,
        getResourceServerInfo: async (_ctx, indicator) => {
          const known = RESOURCES[indicator];
          if (!known) throw new errors.InvalidTarget();
          return { scope: 'sql', audience: known.audience, accessTokenFormat: 'jwt', jwt: { sign: { alg: known.alg } } };
        },
      },
    },
  });
}

let issuer;
let keys = await freshKeys();
let handler;
let jwksDown = false;
const stats = { jwks: 0, token: 0 };
let tokenAnswer = 'well';
let release = [];
let idChange = {};

async function mint({ alg = 'RS256', kid, header = {}, claims = {} }) {
  const now = Math.floor(Date.now() / 1000);
  const payload = {
    iss: issuer, aud: AUDIENCE, sub: 'alice', iat: now, exp: now + 300, preferred_username: 'alice', ...PEOPLE.alice, ...claims,
  };
  for (const name of Object.keys(payload)) if (payload[name] === null) delete payload[name];
  const jwk = keys.find((key) => key.alg === alg);
  // Signed as bytes: some of these tokens are wrong on purpose, and a JWT helper would refuse to make them.
  return new CompactSign(new TextEncoder().encode(JSON.stringify(payload)))
    .setProtectedHeader({ alg, typ: 'at+jwt', kid: kid ?? jwk.kid, ...header })
    .sign(await importJWK(jwk, alg));
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text ? JSON.parse(text) : {};
}

async function sideDoor(request, response, url) {
  switch (`${request.method} ${url.pathname}`) {
    case 'POST /_test/mint':
      return response.end(await mint(await body(request)));
    case 'POST /_test/rotate':
      keys = [...(await freshKeys()), ...(url.searchParams.has('drop') ? [] : keys)];
      handler = provider(issuer, keys).callback();
      return response.end('rotated');
    case 'POST /_test/jwks':
      jwksDown = url.searchParams.get('down') === '1';
      return response.end(jwksDown ? 'down' : 'up');
    case 'POST /_test/token':
      tokenAnswer = url.searchParams.get('answer');
      release.forEach((resume) => resume());
      release = [];
      return response.end(tokenAnswer);
    case 'POST /_test/id':
      idChange = await body(request);
      return response.end('changed');
    case 'GET /_test/stats':
      return response.end(JSON.stringify(stats));
    default:
      response.statusCode = 404;
      return response.end('no such door');
  }
}

async function changed(token) {
  const [header, payload] = token.split('.', 2).map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()));
  const claims = { ...payload, ...idChange.claims };
  for (const name of Object.keys(claims)) if (claims[name] === null) delete claims[name];
  const jwk = (idChange.forge ? await freshKeys() : keys).find((key) => key.alg === 'RS256');
  return new CompactSign(new TextEncoder().encode(JSON.stringify(claims)))
    .setProtectedHeader({ ...header, ...idChange.header })
    .sign(await importJWK(jwk, 'RS256'));
}

// What the token endpoint is told to do besides its work; true when that was all.
async function tamper(response) {
  stats.token += 1;
  if (tokenAnswer === 'hold') {
    await new Promise((resume) => release.push(resume));
  } else if (tokenAnswer === '503') {
    response.statusCode = 503;
    response.end('down for a test');
    return true;
  } else if (tokenAnswer === 'bare' || Object.keys(idChange).length) {
    const end = response.end.bind(response);
    response.end = async (text, ...rest) => {
      const answer = JSON.parse(text);
      if (tokenAnswer === 'bare') delete answer.refresh_token;
      if (answer.id_token) answer.id_token = await changed(answer.id_token);
      const json = JSON.stringify(answer);
      response.setHeader('content-length', Buffer.byteLength(json));
      return end(json, ...rest);
    };
  } else if (tokenAnswer !== 'well') {
    response.statusCode = 400;
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ error: tokenAnswer, error_description: 'as a test <b>wants</b>' }));
    return true;
  }
  return false;
}

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, issuer);
  if (AHEAD) response.setHeader('date', new Date(Date.now()).toUTCString());
  if (url.pathname.startsWith('/_test/')) return sideDoor(request, response, url);
  if (url.pathname === '/jwks') {
    stats.jwks += 1;
    if (jwksDown) {
      response.statusCode = 503;
      return response.end('down for a test');
    }
  }
  if (url.pathname === '/token' && (await tamper(response))) return undefined;
  return handler(request, response);
});
server.listen(0, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  handler = provider(issuer, keys).callback();
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on('end', () => process.exit(0));
