import { Buffer } from 'node:buffer';
import * as fc from 'fast-check';
import t from 'tap';
import { createSerial } from '../../src/pki/certificate.ts';
import { DerError, elementsOf, objectIdentifier, sequence, tags, time, tlv, unsignedInteger } from '../../src/pki/der.ts';

const seed = Date.now() & 0x7fffffff;
t.comment(`seed ${seed}`);
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

t.test('object identifiers, times and integers are written as X.690 and RFC 5280 say', async (t) => {
  t.equal(objectIdentifier('1.2.840.10045.4.3.2').toString('hex'), '06082a8648ce3d040302');
  t.equal(objectIdentifier('2.5.29.30').toString('hex'), '0603551d1e');
  t.equal(time(Date.UTC(2049, 11, 31, 23, 59, 59, 999)).toString('latin1'), '\x17\x0d491231235959Z', 'UTCTime through 2049');
  t.equal(time(Date.UTC(2050, 0, 1)).toString('latin1'), '\x18\x0f20500101000000Z', 'GeneralizedTime from 2050');
  t.equal(unsignedInteger(hex('00 00 7f')).toString('hex'), '02017f');
  t.equal(unsignedInteger(hex('80')).toString('hex'), '02020080');
  t.equal(unsignedInteger(hex('')).toString('hex'), '020100');
});

t.test('what is written is read back, whatever its length', async () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 70_000, size: 'max' }), { maxLength: 3 }), (contents) => {
      const [outer, ...rest] = elementsOf(sequence(...contents.map((content) => tlv(tags.octetString, content))));
      if (outer === undefined || rest.length > 0) return false;
      const inner = elementsOf(outer.content);
      return inner.length === contents.length && inner.every(({ content }, i) => content.equals(contents[i] as Uint8Array));
    }),
    { seed, numRuns: 60 },
  );
});

t.test('what is not DER is refused', async (t) => {
  const refused: Record<string, string> = {
    'indefinite length': '30 80 02 01 01 00 00',
    'length longer than the input': '30 05 02 01 01',
    'length of too many octets': '30 85 00 00 00 00 00',
    'length that ends early': '30 82 01',
    'no length': '30',
    'long form for a short length': '04 81 01 00',
    'leading zero in a length': `04 82 00 80 ${'00'.repeat(128)}`,
    'tag of several octets': '1f 81 00 00',
    'tag zero': '00 00',
    'second element that is cut': '02 01 01 02 05',
  };
  for (const [name, bytes] of Object.entries(refused)) t.throws(() => elementsOf(hex(bytes)), { name: 'DerError' }, name);
});

t.test('the reader throws nothing but DerError', async () => {
  const attempt = (bytes: Uint8Array, depth = 0): void => {
    try {
      for (const { tag, content } of elementsOf(Buffer.from(bytes))) if ((tag & 0x20) !== 0 && depth < 8) attempt(content, depth + 1);
    } catch (error) {
      if (!(error instanceof DerError)) throw error;
    }
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => attempt(bytes)),
    { seed, numRuns: 5_000 },
  );
});

t.test('2,000 serial numbers are positive, minimal and different', async (t) => {
  const serials = Array.from({ length: 2_000 }, () => createSerial());
  const isMinimal = (serial: Buffer): boolean => serial.length === 16 && (serial[0] as number) >= 0x40 && (serial[0] as number) < 0x80;
  t.ok(serials.every(isMinimal), 'a first octet that needs neither padding nor cutting');
  t.ok(serials.every((serial) => unsignedInteger(serial).length === 18));
  t.equal(new Set(serials.map(String)).size, 2_000);
  for (const octet of [0x00, 0x80, 0xff]) t.ok(isMinimal(createSerial((size) => Buffer.alloc(size, octet))), `random octets all ${octet}`);
});
