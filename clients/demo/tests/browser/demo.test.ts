/** The page of the demo in Chromium, against the demo itself. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, BrowserContext, BrowserContextOptions, Locator, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { launch } from '../../../support/page.js';
import { Demo, watch } from '../demo.js';

const MIB = 1024 * 1024;
const STORAGE = /\/upload\/storage\/v1\//;
const BROKER = /\/v1\/uploads/;
const PATIENT = { timeout: 60_000 };

let demo: Demo;
let browser: Browser;
let context: BrowserContext;
let page: Page;
let folder: string;
let watched: ReturnType<typeof watch>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'upload-broker-page-'));
  [demo, browser] = await Promise.all([Demo.start(), launch()]);
});
afterAll(async () => {
  await browser?.close();
  await Promise.all([demo?.stop(), rm(folder, { recursive: true, force: true })]);
});
beforeEach(async () => {
  await demo.calm();
  await demo.clear();
  await visit();
});
afterEach(async () => {
  await context?.close();
  expect(watched.wrongs, 'errors, what the policy refused, and requests to elsewhere').toEqual([]);
});

async function visit(options: BrowserContextOptions = {}): Promise<void> {
  await context?.close();
  context = await browser.newContext({ viewport: { width: 1280, height: 900 }, reducedMotion: 'reduce', ...options });
  page = await context.newPage();
  watched = watch(page);
  await open();
}

async function open(): Promise<void> {
  await page.goto(demo.origin);
  await page.waitForSelector('html[data-ready]', { state: 'attached' });
}

async function file(name: string, bytes: number, seed = 1): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, Buffer.from(Uint32Array.from({ length: bytes / 4 }, (_, n) => Math.imul(n + 1, 2654435761 * seed)).buffer));
  return path;
}

const pick = (...paths: string[]): Promise<void> => page.setInputFiles('#files', paths);
const drop = (name: string, type: string, bytes: number): Promise<void> => page.evaluate(([name, type, bytes]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([new Uint8Array(bytes).fill(7)], name, { type, lastModified: 1 }));
  const target = document.querySelector('#zone')!;
  for (const kind of ['dragenter', 'dragover', 'drop']) target.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
}, [name, type, bytes] as const);

const card = (name: string): Locator => page.locator('.card', { has: page.getByRole('heading', { name, exact: true }) });
const isIn = (name: string, state: string): Promise<void> => card(name).getByText(state, { exact: true }).waitFor(PATIENT);
const button = (name: string): Locator => page.getByRole('button', { name, exact: true });
const says = async (name: string): Promise<string> => (await card(name).innerText()).replace(/\s+/g, ' ');
const chip = (name: string): Promise<void> => button(name).click();

/** Slow enough to be met in the middle, and there: storage has some of it. */
async function inTheMiddle(name: string, path: string): Promise<void> {
  await demo.network({ latency_ms: 700 });
  await pick(path);
  await isIn(name, 'Uploading');
  await expect.poll(() => card(name).getByRole('progressbar').evaluate((bar: HTMLProgressElement) => bar.value), PATIENT).toBeGreaterThan(0);
}
const pause = async (name: string): Promise<void> => {
  await button(`Pause ${name}`).click();
  await isIn(name, 'Paused');
};

describe('files', () => {
  it('that are picked or dropped are stored, under a name and with a digest that the page tells', async () => {
    await pick(await file('holiday.mp4', 3 * MIB));
    await drop('notes of today.txt', 'text/plain', 5000);
    await isIn('holiday.mp4', 'Completed');
    await isIn('notes of today.txt', 'Completed');
    expect(await says('holiday.mp4')).toMatch(/100 % 3\.0 MiB in (\d+ min )?\d+ s to europe-west1 Remove Stored as media-eu\/videos\/ada\/[0-9a-f]{34}\.mp4, and the broker has checked it with storage\. The digest is that of the file here \(CRC32C [\w+/]{6}==\)\.$/);
    expect(await says('notes of today.txt')).toContain('Stored as media-eu/notes/');
    const object = /media-eu\/(videos\/ada\/\S+),/.exec(await says('holiday.mp4'))![1]!;
    await page.getByRole('row', { name: `completed ${object}` }).waitFor(PATIENT);
  });

  it('of any name are stored, and the name is shown as it is', async () => {
    const names = ['日本の夏 🎆.txt', 'שלום <b>&amp;"\'.txt', 'e\u0301te\u0301 à la plage.txt'];
    for (const name of names) await drop(name, 'text/plain', 100);
    for (const name of names) await isIn(name, 'Completed');
  });

  it('that are many wait for their turn, and all come to an end', async () => {
    await demo.network({ latency_ms: 300 });
    for (let n = 0; n < 6; n++) await drop(`${n}.txt`, 'text/plain', 100);
    await card('5.txt').getByText('Waits for its turn').waitFor();
    await expect.poll(() => page.locator('.card[data-state=completed]').count(), PATIENT).toBe(6);
    await button('Remove what ended').click();
    expect(await page.locator('.card').count()).toBe(0);
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('files');
  });
});

describe('an upload under way', () => {
  it('is paused and resumed', async () => {
    await inTheMiddle('pause.mp4', await file('pause.mp4', 24 * MIB));
    await pause('pause.mp4');
    const before = (await demo.chunks()).length;
    await page.waitForTimeout(1500);
    // What was under way when it was paused may still be noted.
    expect((await demo.chunks()).length).toBeLessThanOrEqual(before + 1);
    await demo.calm();
    await button('Resume pause.mp4').click();
    await isIn('pause.mp4', 'Completed');
  });

  it('is cancelled, and the broker knows', async () => {
    await inTheMiddle('cancel.mp4', await file('cancel.mp4', 24 * MIB));
    await button('Cancel cancel.mp4').click();
    await isIn('cancel.mp4', 'Cancelled');
    expect(await says('cancel.mp4')).toContain('The upload was given up, and storage keeps nothing of it.');
    await page.getByRole('row', { name: /^cancelled / }).first().waitFor(PATIENT);
  });

  it('is offered after a reload, and the same file goes on at the byte where storage stands', async () => {
    const path = await file('reload.mp4', 24 * MIB);
    await inTheMiddle('reload.mp4', path);
    await pause('reload.mp4');
    await open();
    const offer = page.locator('#pending li');
    await offer.getByText('reload.mp4').waitFor();
    expect(await offer.innerText()).toMatch(/\d+\.\d MiB of 24\.0 MiB \(\d+ %\) in europe-west1/);
    await demo.calm();
    const seen = await demo.chunks();
    const object = seen.at(-1)?.object;
    const persisted = Math.max(...seen.filter((chunk) => chunk.object === object).map(({ persisted }) => persisted ?? 0));
    await pick(path);
    await isIn('reload.mp4', 'Completed');
    const begins = (await demo.chunks()).slice(seen.length).map(({ content_range }) => Number(/^bytes (\d+)-/.exec(content_range ?? '')?.[1]));
    expect(persisted).toBeGreaterThan(0);
    expect(begins[0]).toBe(persisted);
    expect(await says('reload.mp4')).toMatch(/Continued at \d+\.\d MiB, where storage stood\./);
    await expect.poll(() => page.locator('#pending').isHidden(), PATIENT).toBe(true);
  });

  it('is not continued with another file of the same name, and the page says why; what was begun can be given up', async () => {
    await inTheMiddle('same.mp4', await file('same.mp4', 24 * MIB));
    await pause('same.mp4');
    await open();
    await demo.calm();
    await pick(await file('same.mp4', 24 * MIB, 3));
    await isIn('same.mp4', 'Completed');
    expect(await says('same.mp4')).toContain('Begun anew: a file of this name was being uploaded, but it had other content.');
    await button('Give up same.mp4').click();
    await expect.poll(() => page.locator('#pending').isHidden(), PATIENT).toBe(true);
  });

  it('that another tab goes on with is said to run there, and is continued when that tab is closed', async () => {
    const path = await file('tabs.mp4', 24 * MIB);
    await inTheMiddle('tabs.mp4', path);
    await pause('tabs.mp4');
    await demo.calm();
    const first = page;
    page = await context.newPage();
    const second = watch(page);
    await open();
    const offer = page.locator('#pending li');
    await offer.getByText('tabs.mp4').waitFor();
    expect(await offer.innerText()).toContain('running in another tab');
    expect(await offer.getByRole('button').count()).toBe(0);
    await pick(path);
    await isIn('tabs.mp4', 'Running in another tab');
    await first.close();
    await button('Try again tabs.mp4').click();
    await isIn('tabs.mp4', 'Completed');
    expect(await says('tabs.mp4')).toMatch(/Continued at \d+\.\d MiB/);
    expect(second.wrongs).toEqual([]);
  });

  it('is continued under the policy that it was begun with', async () => {
    const path = await file('policy.mp4', 24 * MIB);
    await page.getByLabel('Policy').selectOption('european');
    await inTheMiddle('policy.mp4', path);
    await open();
    await demo.calm();
    await pick(path);
    await isIn('policy.mp4', 'Completed');
    expect(await says('policy.mp4')).toContain('Continued at');
  });

  it('of a sample is continued after a reload at the press of a button', async () => {
    await demo.network({ latency_ms: 700 });
    await chip('Video, 48 MiB');
    await isIn('sample.mp4', 'Uploading');
    await expect.poll(() => card('sample.mp4').getByRole('progressbar').evaluate((bar: HTMLProgressElement) => bar.value), PATIENT).toBeGreaterThan(0);
    await open();
    await demo.calm();
    await button('Continue sample.mp4').click();
    await isIn('sample.mp4', 'Completed');
    expect(await says('sample.mp4')).toContain('Continued at');
  });
});

describe('on a bad network', () => {
  it('an upload completes, and the page says what happened on the way', async () => {
    watched.mayFail(STORAGE);
    const workers: string[] = [];
    page.on('worker', (worker) => workers.push(new URL(worker.url()).pathname));
    await button('Everything bad').click();
    await page.getByText('Bad network: 300 ms slower, connections cut, answers lost and the next session expires').waitFor();
    // What the network does is left to chance, and Chromium repeats by itself what was cut on a connection that it had used
    // before. Twice in a row it does not.
    await demo.cutTwice();
    await chip('Video, 48 MiB');
    await card('sample.mp4').getByText('Completed', { exact: true }).waitFor({ timeout: 110_000 });
    const text = await says('sample.mp4');
    expect(text).toMatch(/On the way: \d+ retr(y|ies) and 1 new session\./);
    expect(text).toContain('Storage lost the session; the broker opened another one, which began at the first byte.');
    expect(workers, 'the policy lets the page digest off its thread').toEqual(['/crc32c-worker.js']);
    // The session expires once, and the switch says so.
    await expect.poll(() => page.getByRole('switch', { name: 'Expired session' }).getAttribute('aria-checked'), PATIENT).toBe('false');
    await button('All good').click();
    await page.getByText('Good network', { exact: true }).waitFor();
  });

  it('each switch and the slider ask storage to play just that', async () => {
    await page.getByRole('switch', { name: 'Drops' }).click();
    await page.getByRole('slider', { name: 'Latency' }).fill('500');
    await page.getByText('Bad network: 500 ms slower and connections cut').waitFor();
    expect((await demo.world()).network).toEqual({ latency_ms: 500, drops: true, lost_answers: false, expired_session: false });
  });
});

describe('the way to a region', () => {
  const routed = (): Promise<string | null> => page.locator('#routed').textContent();
  const pretend = (country: string): Promise<unknown> => page.getByLabel('Pretend to be in').selectOption({ label: country });

  it('depends on the country, and the broker says how it knows that', async () => {
    expect(await routed()).toBe('From Germany, DNS sends you to europe-west1 in St. Ghislain, Belgium, the nearest region.');
    await pretend('Japan');
    await expect.poll(routed, PATIENT).toBe('From Japan, DNS sends you to asia-northeast1 in Tokyo, the nearest region.');
    await page.getByText('The broker there locates you in JP from the country that its load balancer names in a header, and agrees.').waitFor();
    await drop('tokyo.txt', 'text/plain', 10);
    await isIn('tokyo.txt', 'Completed');
    expect(await says('tokyo.txt')).toContain('Stored as media-asia/notes/');
    await page.getByRole('row', { name: /media|notes.*asia-northeast1/ }).first().waitFor(PATIENT);
  });

  it('passes over a region that is stopped, and comes back to it', async () => {
    watched.mayFail(/\/v1\/(route|policies|uploads)/);
    const stop = page.getByRole('switch', { name: 'europe-west1 runs' });
    await stop.click();
    await expect.poll(routed, PATIENT).toBe('From Germany, DNS sends you to us-central1 in Council Bluffs, Iowa, the nearest region that runs: europe-west1 would be nearer, but is stopped.');
    expect(await stop.getAttribute('aria-checked')).toBe('false');
    await drop('iowa.txt', 'text/plain', 10);
    await isIn('iowa.txt', 'Completed');
    expect(await says('iowa.txt')).toContain('Stored as media-us/notes/');
    await page.getByText('One region is stopped, and not asked.').waitFor(PATIENT);
    await stop.click();
    await expect.poll(routed, PATIENT).toContain('europe-west1 in St. Ghislain');
  });

  it('of a policy that keeps to one region leads there from everywhere', async () => {
    // The broker that is asked says where to go.
    watched.mayFail(BROKER);
    await pretend('Brazil');
    await expect.poll(routed, PATIENT).toContain('us-central1');
    await page.getByLabel('Policy').selectOption('european');
    await drop('gdpr.txt', 'text/plain', 10);
    await isIn('gdpr.txt', 'Completed');
    expect(await says('gdpr.txt')).toContain('to europe-west1');
  });
});

describe('the list of all uploads', () => {
  it('has those of other programs as well, and follows them by events', async () => {
    const broker = (await demo.world()).regions[0]!.broker;
    const body = JSON.stringify({ policy: 'videos', filename: 'other.mp4', content_type: 'video/mp4', size_bytes: MIB });
    const answer = await fetch(`${broker}/v1/uploads`, { method: 'POST', headers: await demo.headers(), body });
    const { id, object, transfer } = (await answer.json()) as { id: string; object: string; transfer: { uri: string } };
    const following = page.waitForRequest((request) => request.url() === `${broker}/v1/uploads/${id}/events`);
    await page.getByRole('row', { name: `pending ${object}` }).waitFor(PATIENT);
    await following;
    const put = await fetch(transfer.uri, { method: 'PUT', headers: { 'content-range': `bytes 0-${MIB / 2 - 1}/${MIB}` }, body: new Uint8Array(MIB / 2) });
    expect(put.status).toBe(308);
    await page.getByRole('row', { name: `uploading ${object} europe-west1 50 % of 1.0 MiB` }).waitFor(PATIENT);
  });

  it('has the newest of all regions, and not more than it has room for', async () => {
    const headers = await demo.headers();
    const lists = await Promise.all((await demo.world()).regions.map(async ({ broker }) =>
      ((await (await fetch(`${broker}/v1/uploads?limit=50`, { headers })).json()) as { uploads: { object: string; created_at: string }[] }).uploads));
    const newest = lists.flat().sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at)).slice(0, 10).map(({ object }) => object);
    expect(newest).toHaveLength(10);
    await expect.poll(() => page.locator('#list .object').allTextContents(), PATIENT).toEqual(newest);
  });
});

describe('what cannot be uploaded is said in words', () => {
  it('a file that is too large, one of a type that no policy takes, and an empty one', async () => {
    watched.mayFail(BROKER);
    await chip('3 GiB video');
    await isIn('too-large.mp4', 'Too large');
    expect(await says('too-large.mp4')).toContain('The file has 3.0 GiB, and at most 2 GiB are allowed under the policy “videos”.');
    await chip('MP3 song');
    await isIn('sample.mp3', 'This type is not taken');
    expect(await says('sample.mp3')).toContain('Files of type audio/mpeg are not taken under the policy “notes”. Taken are text/*, image/*, application/*.');
    await card('sample.mp3').getByText('What the broker said').click();
    expect(await says('sample.mp3')).toMatch(/Code policy-violation Detail .* Status 422 Request [0-9a-f]{16}/);
    await chip('Empty video');
    await isIn('empty.mp4', 'The file is empty');
  });

  it('a stream that turns out longer than its policy allows', async () => {
    await page.getByLabel('Policy').selectOption('streams');
    await pick(await file('camera.mp4', 6 * MIB));
    await isIn('camera.mp4', 'Too large');
    expect(await says('camera.mp4')).toContain('More bytes came than the policy allows, so the broker had the object deleted.');
  });

  it('a file that vanishes while it is uploaded', async () => {
    watched.mayFail(STORAGE);
    const path = await file('gone.mp4', 24 * MIB);
    await inTheMiddle('gone.mp4', path);
    await pause('gone.mp4');
    await rm(path);
    await button('Resume gone.mp4').click();
    await card('gone.mp4').getByText(/^The file (changed|cannot be read)$/).waitFor(PATIENT);
  });

  it('a name that storage does not take', async () => {
    await drop(`${'x'.repeat(300)}.txt`, 'text/plain', 10);
    await page.locator('.card').getByText('This name cannot be').waitFor();
  });

  it('a quota that is used up, and then there is room again', async () => {
    watched.mayFail(BROKER);
    const broker = (await demo.world()).regions[0]!.broker;
    const headers = await demo.headers();
    const taken = await Promise.all(Array.from({ length: 5 }, async (_, n) => {
      const body = JSON.stringify({ policy: 'european', filename: `${n}.txt`, content_type: 'text/plain', size_bytes: 5 });
      return ((await (await fetch(`${broker}/v1/uploads`, { method: 'POST', headers, body })).json()) as { id: string }).id;
    }));
    await page.getByLabel('Policy').selectOption('european');
    await drop('sixth.txt', 'text/plain', 10);
    await isIn('sixth.txt', 'Too many under way');
    await page.getByText('Left: 0 of 5 at once').waitFor();
    for (const id of taken) await fetch(`${broker}/v1/uploads/${id}`, { method: 'DELETE', headers });
    await button('Try again sixth.txt').click();
    await isIn('sixth.txt', 'Completed');
  });
});

it('that the demo does not answer is said, and that it answers again', async () => {
  watched.mayFail(/./);
  const lost = page.getByText('The demo does not answer. Does it still run?');
  await context.setOffline(true);
  await lost.waitFor(PATIENT);
  await context.setOffline(false);
  await lost.waitFor({ ...PATIENT, state: 'hidden' });
});

describe('for everybody', () => {
  it('a keyboard is enough: a file is picked, paused, resumed and cancelled, and the focus is never lost', async () => {
    await demo.network({ latency_ms: 700 });
    const path = await file('keys.mp4', 48 * MIB);
    const reach = async (name: string): Promise<void> => {
      for (let presses = 0; (await page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.id)) !== name; presses++) {
        expect(presses, `${name} is reached by Tab`).toBeLessThan(40);
        await page.keyboard.press('Tab');
      }
    };
    page.on('filechooser', (chooser) => void chooser.setFiles(path));
    await reach('files');
    await page.keyboard.press('Enter');
    await isIn('keys.mp4', 'Uploading');
    await reach('Pause keys.mp4');
    await page.keyboard.press('Space');
    await isIn('keys.mp4', 'Paused');
    await reach('Resume keys.mp4');
    await page.keyboard.press('Enter');
    await isIn('keys.mp4', 'Uploading');
    await page.keyboard.press('Tab');
    await reach('Cancel keys.mp4');
    await page.keyboard.press('Enter');
    await isIn('keys.mp4', 'Cancelled');
    await reach('Remove keys.mp4');
    await page.keyboard.press('Enter');
    expect(await page.evaluate(() => document.activeElement?.id)).toBe('files');
  });

  it('screen readers are told of the turns of an upload, and not of its percents', async () => {
    await page.evaluate(() => {
      const said: string[] = ((globalThis as { said?: string[] }).said = []);
      new MutationObserver(() => said.push(document.querySelector('#announcer')!.textContent)).observe(document.querySelector('#announcer')!, { childList: true });
    });
    await pick(await file('told.mp4', 12 * MIB));
    await isIn('told.mp4', 'Completed');
    expect(await page.evaluate(() => (globalThis as { said?: string[] }).said)).toEqual(['told.mp4: Uploading.', 'told.mp4: Completed.']);
  });

  it.each([360, 390, 768, 1280])('at a width of %i nothing is cut off, whatever is on the page', async (width) => {
    watched.mayFail(BROKER);
    await visit({ viewport: { width, height: 844 }, hasTouch: width < 500, isMobile: width < 500 });
    watched.mayFail(BROKER);
    await demo.network({ latency_ms: 700 });
    await drop(`a-rather-long-name-without-any-place-to-break-it-${'x'.repeat(120)}.txt`, 'text/plain', 100);
    await chip('MP3 song');
    await isIn('sample.mp3', 'This type is not taken');
    await card('sample.mp3').getByText('What the broker said').click();
    await chip('Video, 48 MiB');
    await isIn('sample.mp4', 'Uploading');
    await open();
    await page.locator('#pending li').first().waitFor();
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(width);
    if (width < 500) {
      const small = await page.locator('button:visible, select:visible, summary:visible, input[type=range]:visible, .status a').evaluateAll((elements) =>
        elements.map((element) => ({ text: element.textContent, height: element.getBoundingClientRect().height })).filter(({ height }) => height < 44));
      expect(small, 'too small for a finger').toEqual([]);
    }
  });

  it.each(['light', 'dark'] as const)('axe finds nothing to complain of in %s colours, in any state', async (colorScheme) => {
    await visit({ colorScheme });
    watched.mayFail(BROKER);
    const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
    const complaints = async (): Promise<unknown> => {
      await page.evaluate(axe);
      return page.evaluate(async () => {
        const { axe } = globalThis as unknown as { axe: { run: () => Promise<{ violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[] }> } };
        return (await axe.run()).violations.map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])]);
      });
    };
    expect(await complaints(), 'idle').toEqual([]);
    await demo.network({ latency_ms: 700, lost_answers: true });
    await demo.put('regions/asia-northeast1', { running: false });
    await page.getByText('Tokyo. Stopped').waitFor(PATIENT);
    await drop('done.txt', 'text/plain', 10);
    await chip('MP3 song');
    await chip('Video, 48 MiB');
    watched.mayFail(STORAGE);
    await isIn('sample.mp3', 'This type is not taken');
    await isIn('sample.mp4', 'Uploading');
    expect(await complaints(), 'uploading').toEqual([]);
    await pause('sample.mp4');
    await open();
    await button('Continue sample.mp4').waitFor();
    expect(await complaints(), 'with something to continue').toEqual([]);
  });
});
