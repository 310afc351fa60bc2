/** What the page is made of, as far as it needs no browser. */
import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { UploadBrokerError } from '../../../web/src/errors.js';
import { dots, project, way } from '../../../../src/demo/page/geography.js';
import { reason } from '../../../../src/demo/page/reasons.js';
import { ago, and, duration, limit, percent, policy, size } from '../../../../src/demo/page/words.js';
import { PAGE, build } from '../../build.js';

const MIB = 1024 * 1024;
const text = (name: string): string => readFileSync(PAGE + name, 'utf8');

describe('the files of the page', () => {
  it('what is made of the client is what the client is now: else run `npm run build --workspace demo` in clients/', () => {
    const built = build();
    expect(built.map(({ name }) => name).sort()).toEqual(['client.js', 'crc32c-worker.js']);
    for (const { name, text: now } of built) expect(text(name) === now, name).toBe(true);
  });

  it('everything that a script imports is there, and nothing comes from elsewhere', () => {
    const files = readdirSync(PAGE);
    for (const file of files.filter((name) => /\.(js|html|css|svg)$/.test(name))) {
      for (const [, from] of text(file).matchAll(/^import .*? from "([^"]+)"/gms)) expect(files, file).toContain(from?.replace('./', ''));
      for (const [address] of text(file).matchAll(/https?:\/\/[^\s"'`)]+/g)) {
        // A namespace is a name, and an example is none either.
        expect(['http://www.w3.org/2000/svg', 'https://eu.uploads.example.com'], file).toContain(address);
      }
    }
  });

  it('the HTML has no script and no style of its own', () => {
    const html = text('page.html');
    expect(html).not.toMatch(/<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)/);
  });

  it('every element that a script looks for is in the HTML, once', () => {
    const ids = [...text('page.html').matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const file of readdirSync(PAGE).filter((name) => name.endsWith('.js') && !/client|worker/.test(name))) {
      for (const [, id] of text(file).matchAll(/byId\("([^"]+)"\)/g)) expect(ids, file).toContain(id);
    }
  });
});

describe('numbers in words', () => {
  it.each([
    [0, '0 bytes'], [1, '1 byte'], [1023, '1023 bytes'], [1024, '1.0 KiB'], [1536, '1.5 KiB'],
    [MIB - 1, '1.0 MiB'], [48 * MIB, '48.0 MiB'], [5 * 1024 ** 4, '5.0 TiB'], [5000 * 1024 ** 4, '5000.0 TiB'],
  ])('%i bytes are %s', (bytes, words) => expect(size(bytes)).toBe(words));

  it('limits are said as people write them', () => expect([limit(2 * 1024 ** 3), limit(1.5 * MIB)]).toEqual(['2 GiB', '1.5 MiB']));

  it.each([[0, '1 s'], [0.2, '1 s'], [59.1, '1 min'], [125, '2 min 5 s'], [3600, '1 h 0 min'], [7322, '2 h 2 min'], [1e7, 'days']])(
    '%d seconds are %s', (seconds, words) => expect(duration(seconds)).toBe(words));

  it('100 percent is said only when all is there', () => expect([percent(999, 1000), percent(1000, 1000), percent(0, 0), percent(5, undefined)]).toEqual([99, 100, 0, undefined]));

  it.each([[3, 'just now'], [25, '20 s ago'], [119, '1 min ago'], [7300, '2 h ago'], [90_000, '1 day ago']])(
    '%i seconds ago is %s', (seconds, words) => expect(ago(0, seconds * 1000)).toBe(words));

  it('lists are joined as in a sentence', () => expect([and([]), and(['a']), and(['a', 'b']), and(['a', 'b', 'c'])]).toEqual(['', 'a', 'a and b', 'a, b and c']));

  it('a policy says what it takes and what is left', () => {
    const words = policy({
      name: 'videos', content_types: ['video/*'], min_size_bytes: 1, max_size_bytes: 2 * 1024 ** 3, unknown_size: false, regions: ['europe-west1'],
      max_active: 5, active: 6, rate: '60/1m', rate_left: 59, daily_bytes: 20 * 1024 ** 3, daily_bytes_left: 0,
    });
    expect(words).toEqual({
      takes: 'video/*, from 1 byte, up to 2 GiB, in europe-west1 only',
      left: ['0 of 5 at once', '0 bytes of 20 GiB today', '59 of 60 starts per minute'],
    });
  });
});

describe('the end of an upload in words', () => {
  const problem = (code: string, more = {}) => new UploadBrokerError(code, 'something of the broker', {
    problem: { type: 'x', title: 'A title', status: 422, detail: 'something of the broker', code, request_id: '5f3a9c1e7b20d846', ...more },
  });
  const violated = (limit: string, allowed: string, given: string) => problem('policy-violation', { violations: [{ limit, allowed, given }] });

  it.each([
    ['too large', violated('max_size', String(2 * 1024 ** 3), String(3 * 1024 ** 3)), 'The file has 3.0 GiB, and at most 2 GiB are allowed under the policy “videos”.'],
    ['empty', violated('min_size', '1', '0'), 'There is nothing in it to upload, and at least 1 byte is asked for under the policy “videos”.'],
    ['of another type', violated('content_types', 'video/*', 'audio/mpeg'), 'Files of type audio/mpeg are not taken under the policy “videos”. Taken are video/*.'],
    ['of a limit that is not known here', violated('new_limit', '1', '2'), 'The upload does not keep to new limit under the policy “videos”: 1 is allowed, and 2 was given.'],
    ['of a quota', problem('quota-exceeded', { limit: 'max_active' }), 'So many of your uploads are under way as the policy allows. Finish or cancel one, then try again.'],
    ['of a quota that is not known here', problem('quota-exceeded', { limit: 'new' }), 'Something of the broker.'],
    ['of a code that is not known here', problem('brand-new'), 'Something of the broker.'],
    ['that vanished', new UploadBrokerError('source-changed', 'x'), 'The file was changed, moved or removed while it was uploaded, so the upload was given up. Pick the file again, as it is now.'],
  ])('a file %s', (_, error, words) => expect(reason(error, 'videos').text).toBe(words));

  it('a rejection says what was broken', () => {
    const upload = { rejection: { code: 'size-limit', detail: 'x' } } as never;
    expect(reason(new UploadBrokerError('rejected', 'x', { upload })).title).toBe('Too large');
  });

  it('several violations are all said', () => {
    const error = problem('policy-violation', { violations: [{ limit: 'max_size', allowed: '1', given: '2' }, { limit: 'content_types', allowed: 'video/*', given: 'a/b' }] });
    expect(reason(error).text).toBe('The file has 2 bytes, and at most 1 byte are allowed. Files of type a/b are not taken. Taken are video/*.');
  });

  it('every code of the broker that ends an upload has words of its own', () => {
    for (const code of ['policy-denied', 'unauthenticated', 'not-found', 'misdirected', 'overloaded', 'storage-unavailable', 'store-unavailable',
      'invalid-name', 'source-unreadable', 'source-lost', 'gave-up', 'token-unavailable', 'storage-refused', 'session-lost-again', 'content-mismatch', 'expired', 'cancelled']) {
      expect(reason(new UploadBrokerError(code, 'raw')).text, code).not.toBe('Raw.');
    }
  });
});

describe('the map', () => {
  const isLand = (latitude: number, longitude: number): boolean => {
    const { x, y } = project({ latitude, longitude });
    return dots().some((dot) => Math.hypot(dot.x - x, dot.y - y) < 6);
  };

  it.each([['Berlin', 52.5, 13.4], ['Iowa', 41, -95], ['Brasília', -15.8, -47.9], ['Nairobi', -1.3, 36.8], ['Delhi', 28.6, 77.2], ['Alice Springs', -23.7, 133.9], ['Tokyo', 36, 139.5], ['Yakutsk', 62, 129.7]])(
    '%s is on land', (_, latitude, longitude) => expect(isLand(latitude, longitude)).toBe(true));

  it.each([['the Atlantic', 30, -40], ['the Pacific', 0, -140], ['the Indian Ocean', -25, 80], ['the Caspian Sea', 42, 51], ['the Mediterranean', 34, 18], ['the Gulf of Mexico', 25, -90]])(
    '%s is not', (_, latitude, longitude) => expect(isLand(latitude, longitude)).toBe(false));

  it('north is up, east is right, and the middle is in the middle', () => {
    expect(project({ latitude: 10, longitude: 0 }).y).toBeLessThan(project({ latitude: -10, longitude: 0 }).y);
    expect(project({ latitude: 0, longitude: 180 }).x).toBeCloseTo(1000);
    expect(project({ latitude: 40, longitude: 0 }).x).toBe(500);
  });

  it('a way over the date line leaves the map at one side and comes in at the other', () => {
    const path = way({ latitude: -41.8, longitude: 172.8 }, { latitude: 41.2, longitude: -95.9 });
    expect(path.match(/M/g)).toHaveLength(2);
    expect(way({ latitude: 51, longitude: 10 }, { latitude: 50, longitude: 4 }).match(/M/g)).toHaveLength(1);
  });

  it('a way to where one is, is still a way', () => expect(way({ latitude: 1, longitude: 2 }, { latitude: 1, longitude: 2 })).not.toContain('NaN'));
});
