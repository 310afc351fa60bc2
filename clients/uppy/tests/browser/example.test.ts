/** The example in Chromium: files are dropped, paused, resumed, and survive a reload. */
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { launch, Site } from '../../../support/page.js';
import { World } from '../../../support/servers.js';

const MIB = 1024 * 1024;
/** One chunk and a half. Golden Retriever keeps files of up to 10 MiB. */
const SIZE = 9.5 * MIB;
/** More than Golden Retriever keeps, and not more than two chunks. */
const LARGE = 12 * MIB;

let world: World;
let site: Site;
let browser: Browser;
let page: Page;
let errors: string[];

beforeAll(async () => {
  [site, browser] = await Promise.all([new Site([fileURLToPath(new URL('../../example/dist', import.meta.url))], { '/token': () => world.token() }).start(), launch()]);
  world = await World.start({ origins: [site.origin], asInProduction: true });
});
afterAll(async () => {
  await browser?.close();
  await Promise.all([world?.stop(), site?.stop()]);
});

beforeEach(async () => {
  errors = [];
  await world.mend();
  await world.forgetJournal();
  page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
  page.on('pageerror', (error) => errors.push(error.message));
});
afterEach(async () => {
  await page?.context().close();
  expect(errors).toEqual([]);
});

const open = async (): Promise<void> => void (await page.goto(`${site.origin}/?broker=${encodeURIComponent(world.broker)}`));
const button = (name: string) => page.getByRole('button', { name, exact: true });

/** Onto what takes files, once it is there. */
const drop = (names: string[], size = SIZE): Promise<void> => page.locator('.uppy-Dashboard-AddFiles').first().evaluate((target, [names, size]) => {
  const dataTransfer = new DataTransfer();
  for (const name of names) dataTransfer.items.add(new File([new Uint8Array(size).fill(name.length)], name, { type: 'video/mp4', lastModified: 1 }));
  for (const type of ['dragenter', 'dragover', 'drop']) target.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
}, [names, size] as const);

/** How many sessions have had their first chunk. */
const halves = async (): Promise<number> => (await world.journal()).filter(({ operation, persisted }) => operation === 'chunk' && persisted === 8 * MIB).length;

it('two files are dropped, paused, resumed, survive a reload and are done', async () => {
  const requests = new Set<string>();
  page.on('request', (request) => requests.add(new URL(request.url()).origin));
  await open();
  await world.faults({ operation: 'chunk', skip: 2, count: null, action: { kind: 'hold' } });
  await drop(['first.mp4', 'second one.mp4']);
  await button('Upload 2 files').click();
  await expect.poll(halves, { timeout: 20_000 }).toBe(2);

  await button('Pause').click();
  await page.getByText('Paused').first().waitFor();
  await button('Resume').click();
  await page.getByText(/^Uploading/).first().waitFor();

  await open();
  await world.mend();
  await world.forgetJournal();
  // Golden Retriever has brought both back.
  await page.getByText('first.mp4').first().waitFor();
  await page.getByText('second one.mp4').first().waitFor();
  await page.getByText('You can now resume the upload').waitFor();
  await button('Upload 2 files').click();
  await page.getByText('first.mp4 is stored as').waitFor();
  await page.getByText('second one.mp4 is stored as').waitFor();
  await page.getByText(/^Complete/).first().waitFor();

  const journal = await world.journal();
  const chunks = journal.filter(({ operation, status }) => operation === 'chunk' && status !== undefined);
  // Of what was under way at the reload, storage may have kept a part as well.
  const begins = chunks.map(({ content_range }) => Number(/^bytes (\d+)-/.exec(content_range ?? '')?.[1]));
  expect(begins.length).toBeGreaterThanOrEqual(2);
  expect(Math.min(...begins), 'what was there was not sent again').toBeGreaterThanOrEqual(8 * MIB);
  expect(journal.filter(({ operation }) => operation === 'initiate'), 'no new upload was begun').toEqual([]);
  expect([...requests].sort(), 'no external assets').toEqual([site.origin, world.storage, world.broker].sort());
});

/** A file of more than Golden Retriever keeps is paused after its first chunk, and the page comes again: it is a ghost. */
async function ghost(): Promise<void> {
  await open();
  await world.faults({ operation: 'chunk', skip: 1, count: null, action: { kind: 'hold' } });
  await drop(['large.mp4'], LARGE);
  await button('Upload 1 file').click();
  await expect.poll(halves, { timeout: 20_000 }).toBe(1);
  await button('Pause').click();
  await page.getByText('Paused').first().waitFor();
  // It writes down what it knows of files within half a second, and tells nobody when it has.
  await page.waitForTimeout(1_500);
  await open();
  await world.mend();
  await world.forgetJournal();
  await page.getByText('We could not fully recover 1 file. Please re-select it and resume the upload.').waitFor();
  expect(await button('Upload 1 file').isDisabled(), 'there is nothing yet that could be uploaded').toBe(true);
}

it('a file that is too large to be kept is selected again after a reload, and goes on where storage stands', async () => {
  await ghost();
  await button('Re-select').click();
  await drop(['large.mp4'], LARGE);
  await page.getByText('You can now resume the upload').waitFor();
  await button('Upload 1 file').click();
  await page.getByText('large.mp4 is stored as').waitFor();
  await page.getByText(/^Complete/).first().waitFor();
  const journal = await world.journal();
  expect(journal.filter(({ operation }) => operation === 'initiate'), 'no new upload was begun').toEqual([]);
  // Of what was under way at the reload, storage may have kept a part as well.
  const stood = journal.find(({ operation }) => operation === 'status')?.persisted;
  expect(stood).toBeGreaterThanOrEqual(8 * MIB);
  const sent = journal.filter(({ operation, status }) => operation === 'chunk' && status !== undefined);
  expect(sent.map(({ content_range }) => content_range)).toEqual([`bytes ${stood}-${LARGE - 1}/${LARGE}`]);
});

it('a file that is too large to be kept, and is not selected again, is cancelled at the broker when it is removed', async () => {
  await ghost();
  // By keyboard: in Uppy's layout the preview lies over the middle of the button.
  await button('Remove file').press('Enter');
  await expect.poll(async () => (await world.journal()).map(({ operation, status }) => [operation, status]), { timeout: 20_000 }).toContainEqual(['cancel', 499]);
});
