// Writes jose.json. The keys are made anew and thrown away: `npm install jose@6.2.18`, `node generate.mjs > jose.json`
// (Node 20).
import * as jose from 'jose'
const claims = { iss: 'https://issuer.example', aud: ['api', 'other'], sub: 'alice', iat: 1700000000, nbf: 1700000000, exp: 1700003600, scope: 'read write' }
const out = { jwks: { keys: [] }, tokens: {} }
for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']) {
  const { publicKey, privateKey } = await jose.generateKeyPair(alg, { extractable: true, modulusLength: 2048 })
  const jwk = { ...(await jose.exportJWK(publicKey)), kid: alg, use: 'sig' }
  out.jwks.keys.push(jwk)
  const token = await new jose.SignJWT(claims).setProtectedHeader({ alg, kid: alg, typ: 'at+jwt' }).sign(privateKey)
  out.tokens[alg] = { token, thumbprint: await jose.calculateJwkThumbprint(jwk), pem: await jose.exportSPKI(publicKey) }
}
for (const [alg, bytes] of [['HS256', 32], ['HS384', 48], ['HS512', 64]]) {
  const secret = crypto.getRandomValues(new Uint8Array(bytes))
  out.jwks.keys.push({ kty: 'oct', k: jose.base64url.encode(secret), kid: alg, alg })
  out.tokens[alg] = { token: await new jose.SignJWT(claims).setProtectedHeader({ alg, kid: alg }).sign(secret) }
}
console.log(JSON.stringify(out, null, 1))
