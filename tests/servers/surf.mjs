// Headless Chromium through a proxy: node surf.mjs PROXY URL [USER PASSWORD]
//
// Opens the page, which echoes its request, and a WebSocket to its host; prints one JSON line of what it saw. It trusts
// what the certificate database in the home directory says.
import puppeteer from 'puppeteer-core';
import { existsSync } from 'node:fs';

const [proxy, url, username, password] = process.argv.slice(2);
const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
if (!executablePath) throw new Error('Chromium is not installed: run ./test');

const browser = await puppeteer.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', `--proxy-server=${proxy}`, '--proxy-bypass-list=<-loopback>'],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  if (username) await page.authenticate({ username, password });
  const answer = await page.goto(url).catch((error) => ({ status: () => error.message.split(' at ')[0] }));
  const seen = { status: answer.status() };
  if (seen.status === 200) {
    Object.assign(seen, await page.evaluate(async () => {
      const socket = new WebSocket(`wss://${location.host}/socket`);
      const message = await new Promise((resolve, reject) => {
        socket.onopen = () => socket.send('hello');
        socket.onmessage = (event) => resolve(event.data);
        socket.onerror = () => reject(new Error('the WebSocket failed'));
      });
      return {
        protocol: performance.getEntriesByType('navigation')[0].nextHopProtocol,
        target: JSON.parse(document.body.innerText).target,
        message,
      };
    }));
  }
  process.stdout.write(`${JSON.stringify(seen)}\n`);
} finally {
  await browser.close();
}
