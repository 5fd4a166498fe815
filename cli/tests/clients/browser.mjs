// A person at a real browser: Chromium without a window, led through a provider's pages to the page that gprxy shows.
//
//   browser.mjs '{"url": …, "person": …, "password"?: …, "refuses"?: true, "shots": directory, "name": prefix of files}'
//
// Takes a picture of every page, light and dark, and prints one line of JSON about the last one.
import fs from 'node:fs';
import path from 'node:path';
import { chromium } from 'playwright-core';

const plan = JSON.parse(process.argv[2]);
const callback = new URL(new URL(plan.url).searchParams.get('redirect_uri') ?? plan.url);
const requests = [];
const complaints = [];

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  // Playwright turns the sandbox off by itself, without which Chromium does not run as root. It visits loopback only.
  args: ['--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--no-proxy-server',
    // Nothing but loopback has an address: a page that needs the network shows it.
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1'],
});
const page = await browser.newPage({ viewport: { width: 1000, height: 680 } });
page.setDefaultTimeout(20_000);
page.on('request', (request) => requests.push(request.url()));
page.on('dialog', (dialog) => { complaints.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
// A page with status 400 is reported as a resource that failed; that is no complaint about what is in it.
page.on('console', (message) => {
  if (atCallback() && !message.text().startsWith('Failed to load resource')) complaints.push(message.text());
});
page.on('pageerror', (error) => { if (atCallback()) complaints.push(String(error)); });

const atCallback = () => page.url().startsWith(callback.origin + callback.pathname);

async function picture(name) {
  for (const colorScheme of ['dark', 'light']) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: path.join(plan.shots, `${plan.name}-${name}-${colorScheme}.png`) });
  }
}

// Fills in one page of either provider; its name.
async function step() {
  const seen = async (selector) => page.locator(selector).first().isVisible();
  const login = page.locator('input[name=login]');
  const password = page.locator('input[name=password]');
  if ((await seen('input[name=login]')) || (await seen('input[name=password]'))) {
    await picture('login');
    if (plan.refuses && (await seen('a[href$="/abort"]'))) return page.locator('a[href$="/abort"]').click();
    if (await login.isVisible()) await login.fill(plan.person);
    if (await password.isVisible()) await password.fill(plan.password ?? 'anything');
    return page.locator('main button[type=submit], form button[type=submit]').last().click();
  }
  await picture('consent');
  const answer = plan.refuses ? '#deny' : '#accept, button:has-text("Continue")';
  return page.locator(answer).first().click();
}

// What is only on loopback and only at one path.
async function doors() {
  const found = {};
  for (const door of ['/favicon.ico', '/', '/callback/', '/callback.html']) {
    found[door] = (await page.request.get(callback.origin + door)).status();
  }
  return found;
}

// The least contrast of any text on the page with what is behind it (WCAG 2.2, 1.4.3).
function contrast() {
  const parse = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = parse(color).slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return (parse(color)[3] ?? 1) > 0 || !element.parentElement ? color : behind(element.parentElement);
  };
  const texts = [...document.querySelectorAll('h1, p, code, strong, li')];
  return Math.min(...texts.map((element) => {
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }));
}

async function inspect() {
  const measured = { contrast: {} };
  for (const colorScheme of ['dark', 'light']) {
    await page.emulateMedia({ colorScheme });
    measured.contrast[colorScheme] = await page.evaluate(contrast);
  }
  const overflow = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
  await page.setViewportSize({ width: 320, height: 640 });
  measured.overflow = await page.evaluate(overflow);
  await page.screenshot({ path: path.join(plan.shots, `${plan.name}-narrow-light.png`) });
  return measured;
}

fs.mkdirSync(plan.shots, { recursive: true });
let status;
page.on('response', (response) => { if (response.url().startsWith(callback.href)) status = response.status(); });
const found = plan.doors ? await doors() : {};
await page.goto(plan.url, { waitUntil: 'load' });
let steps = 0;
while (!atCallback()) {
  if (++steps > 8) throw new Error(`the sign-in goes in circles at ${page.url()}`);
  const before = page.url();
  await Promise.all([page.waitForURL((url) => url.href !== before, { waitUntil: 'load' }), step()]);
}
await picture('end');
const seen = await page.evaluate(() => ({
  title: document.title,
  text: document.body.innerText,
  address: location.href,
  elements: [...new Set([...document.querySelectorAll('body *')].map((element) => element.localName))],
  isStyled: getComputedStyle(document.body).display === 'grid',
}));
// Providers' own pages may ask for fonts from anywhere; what counts is what was asked for since we came back.
const asked = requests.slice(requests.findIndex((url) => url.startsWith(callback.href)));
console.log(JSON.stringify({ ...seen, ...(await inspect()), status, steps, doors: found, asked: asked.length, complaints }));
await browser.close();
