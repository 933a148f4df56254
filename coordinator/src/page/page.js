// Asks for the page again and shows what is new, so that nobody reloads. Without it the page reloads itself.
"use strict";

async function look() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [mine, theirs] = [document, page].map((one) => one.querySelector("main"));
    if (theirs && mine.innerHTML !== theirs.innerHTML) {
      const focused = document.activeElement?.getAttribute("href");
      mine.replaceChildren(...theirs.childNodes);
      if (focused) mine.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    }
  } catch {
    // The program that serves the page has ended; what is shown stays.
  }
  setTimeout(look, 3000);
}

setTimeout(look, 3000);
