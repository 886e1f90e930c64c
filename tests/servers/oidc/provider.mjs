// An OpenID provider on a port of the loopback, for tests: it grants client credentials, as JWT access tokens.
//
//   node provider.mjs FOLDER_WITH_NODE_MODULES SETTINGS
//
// The settings are a JSON file: {port, keys, lifetime, clients: {id: {secret, claims}}}. `keys` are names; the key of a
// name is made when it is first used, in the folder of the settings, and the first one signs.
import { generateKeyPairSync } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, file] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(join(modules, 'node_modules/oidc-provider/lib/index.js')));
const settings = JSON.parse(readFileSync(file));

function key(name) {
  const path = join(dirname(file), `${name}.jwk`);
  if (!existsSync(path)) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const jwk = { ...privateKey.export({ format: 'jwk' }), kid: name, use: 'sig', alg: 'ES256' };
    writeFileSync(path, JSON.stringify(jwk));
  }
  return JSON.parse(readFileSync(path));
}

const provider = new Provider(`http://127.0.0.1:${settings.port}`, {
  jwks: { keys: settings.keys.map(key) },
  clients: Object.entries(settings.clients).map(([id, { secret }]) => ({
    client_id: id,
    client_secret: secret,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: 'ES256',
  })),
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, resource) => ({
        scope: '',
        audience: resource,
        accessTokenFormat: 'jwt',
        accessTokenTTL: settings.lifetime,
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  extraTokenClaims: (_context, token) => settings.clients[token.clientId].claims,
});
provider.on('server_error', (_context, error) => console.error(error));
provider.listen(settings.port, '127.0.0.1', () => console.log('serving'));
