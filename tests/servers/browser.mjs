// A person with a browser for the tests: headless Chromium that logs in at npm `oidc-provider`.
//
// usage: node browser.mjs URL [USER_CODE]
//
// Fills in whatever form it is shown until no form is left, then prints one JSON line with the title and text of the
// last page.

import puppeteer from 'puppeteer-core';
import { existsSync } from 'node:fs';

const [url, userCode] = process.argv.slice(2);
const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
if (!executablePath) throw new Error('Chromium is not installed: run ./test');

const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  await page.goto(url);
  for (let forms = 0; forms < 10; forms += 1) {
    const submit = await page.$('[type=submit], form button');
    if (!submit) break;
    for (const [field, value] of [['login', 'person'], ['password', 'a password'], ['user_code', userCode ?? '']]) {
      const input = await page.$(`input[name=${field}]:not([type=hidden])`);
      if (input && !(await input.evaluate((element) => element.value))) await input.type(value);
    }
    await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), submit.evaluate((element) => element.click())]);
  }
  const [title, text] = await page.evaluate(() => [document.title, document.body.innerText]);
  process.stdout.write(`${JSON.stringify({ title, text })}\n`);
} finally {
  await browser.close();
}
