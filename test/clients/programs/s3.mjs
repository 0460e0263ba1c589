// An object put and got with the AWS SDK for JavaScript: `s3.mjs URL [alone]`. Prints a JSON line.
import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';

const [, , endpoint, alone] = process.argv;
const hash = (bytes) => createHash('sha256').update(bytes).digest('hex');

const client = new S3Client({
  endpoint,
  forcePathStyle: true,
  region: 'us-east-1',
  // What the SDK signs with, and the proxy signs over.
  credentials: { accessKeyId: 'none', secretAccessKey: 'none' },
  maxAttempts: 1,
  // The SDK makes agents of its own, which no proxy variable reaches.
  requestHandler: alone
    ? {}
    : { httpsAgent: new https.Agent({ proxyEnv: process.env }), httpAgent: new http.Agent({ proxyEnv: process.env }) },
});
// Bytes that paths elsewhere must not have, or have in another spelling.
const Key = 'dir//a b+c;caf\u00e9-js';
const sent = randomBytes(3 * 1_048_576);
const { ETag } = await client.send(new PutObjectCommand({ Bucket: 'bucket', Key, Body: sent }));
const { Body } = await client.send(new GetObjectCommand({ Bucket: 'bucket', Key }));
const got = await Body.transformToByteArray();
console.log(JSON.stringify({ etag: ETag, isWhole: hash(got) === hash(sent), bytes: got.length }));
