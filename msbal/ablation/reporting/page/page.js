"use strict";
(() => {
  // Only comfort: without this script everything is there, in light colours.
  const root = document.documentElement;
  const preferred = window.matchMedia("(prefers-color-scheme: dark)");
  root.dataset.theme = preferred.matches ? "dark" : "light";
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
  });
  // Paper is white, and has nothing to click on.
  const opened = [];
  let before = "";
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    document.querySelectorAll("details:not([open])").forEach((details) => { details.open = true; opened.push(details); });
  });
  window.addEventListener("afterprint", () => {
    root.dataset.theme = before;
    opened.splice(0).forEach((details) => { details.open = false; });
  });
})();
