import t from 'tap';
import { grpcContentType, grpcMessage, grpcStatusCodes, isGrpc } from '../../src/core/grpc.ts';
import { faults } from '../../src/core/fault.ts';

t.test('which calls are gRPC, and which read a gRPC status', async (t) => {
  const rows: readonly [string | undefined, boolean, string | undefined][] = [
    ['application/grpc', true, 'application/grpc'],
    ['application/grpc+proto', true, 'application/grpc+proto'],
    ['Application/gRPC+JSON; charset=utf-8', true, 'application/grpc+json'],
    ['application/grpc;x=y', true, 'application/grpc'],
    ['application/grpc-web', false, 'application/grpc-web'],
    ['application/grpc-web+proto', false, 'application/grpc-web+proto'],
    ['application/grpc-web-text', false, 'application/grpc-web-text'],
    ['application/grpc-web-text+proto; a=b', false, 'application/grpc-web-text+proto'],
    ['application/grpc-evil', false, undefined],
    ['application/grpcx', false, undefined],
    ['text/plain; application/grpc', false, undefined],
    ['application/grpc+proto\u00e9', true, undefined],
    [`application/grpc+${'x'.repeat(100)}`, true, undefined],
    ['', false, undefined],
    [undefined, false, undefined],
  ];
  for (const [type, needsH2, answered] of rows) {
    const headers = type === undefined ? [] : [['Content-Type', type] as const];
    t.same([isGrpc(headers), grpcContentType(headers)], [needsH2, answered], type ?? 'none');
  }
});

t.test('a status message is percent-encoded as the protocol says, and is always writable as a field', async (t) => {
  t.equal(grpcMessage('policy_denied: no.'), 'policy_denied: no.');
  t.equal(grpcMessage('100 % – ü\r\nx: y'), '100 %25 %E2%80%93 %C3%BC%0D%0Ax: y');
  t.equal(decodeURIComponent(grpcMessage('100 % – ü\r\n\u0000😀')), '100 % – ü\r\n\u0000😀');
  for (let code = 0; code < 0x300; code += 1) t.match(grpcMessage(String.fromCodePoint(code)), /^[\x20-\x7e]+$/, { skip: false });
});

t.test('every fault has a gRPC status that is not OK', async (t) => {
  for (const [code, { grpc }] of Object.entries(faults)) if (!(grpcStatusCodes[grpc] > 0)) t.fail(code);
  t.equal(grpcStatusCodes.PERMISSION_DENIED, 7);
});
