// Opens every page in a browser and looks at it: node look.cjs URL OUT CHROMIUM COORDINATOR LEADER
"use strict";

const { execFileSync } = require("node:child_process");
const { join } = require("node:path");
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const [url, out, executablePath, coordinator, leader] = process.argv.slice(2);
const PAGES = { overview: "/", tasks: "/tasks", task: "/tasks/1", reference: "/references/lung", site: "/sites/north", events: "/events" };
const VIEWS = {
  light: { viewport: { width: 1200, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1200, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 360, height: 740 }, colorScheme: "light" },
};
let nFaults = 0;

function check(is, what) {
  console.log(`${is ? "ok " : "BAD"} ${what}`);
  nFaults += is ? 0 : 1;
}

async function look(browser) {
  for (const [view, options] of Object.entries(VIEWS)) {
    // The page's own policy lets nothing in; the judge is let in here, and nothing else changes.
    const context = await browser.newContext({ ...options, bypassCSP: true });
    const page = await context.newPage();
    const said = [];
    page.on("console", (message) => message.type() === "error" && said.push(message.text()));
    page.on("pageerror", (error) => said.push(String(error)));
    for (const [name, path] of Object.entries(PAGES)) {
      await page.goto(url + path);
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => axe.run());
      const faults = violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.target).join(" ")}`);
      check(faults.length === 0, `${name}, ${view}: axe finds ${faults.length} violations ${faults.join("; ")}`);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      check(wider <= 0, `${name}, ${view}: ${Math.max(wider, 0)} pixels wider than the window`);
      await page.screenshot({ path: join(out, `${name}-${view}.png`) });
    }
    check(said.length === 0, `${view}: the browser complains of ${said.length} things ${said.join("; ")}`);
    await context.close();
  }
}

async function live(browser) {
  const page = await browser.newPage();
  await page.goto(url);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  check(await page.evaluate(() => document.activeElement.id === "main"), "by keyboard one comes to the content at once");
  await page.evaluate(() => { window.isStill = true; });
  process.kill(Number(leader), "SIGKILL");
  execFileSync(coordinator, ["site", "add", "newcomer"], { stdio: "ignore" });
  await page.waitForSelector('a[href="/sites/newcomer"]', { timeout: 20000 });
  check(await page.evaluate(() => window.isStill), "the leader is killed, a site comes, and it is there without a reload");
  await page.close();
}

(async () => {
  const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  const browser = await chromium.launch({ executablePath, args: quiet });
  try {
    await look(browser);
    await live(browser);
  } finally {
    await browser.close();
  }
  process.exit(nFaults === 0 ? 0 : 1);
})();
