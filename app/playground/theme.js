// Light or dark: as the system has it, until somebody chooses. Runs before the page is painted, so that it never flashes.
"use strict";

(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function stored() {
    try {
      return localStorage.getItem("box2mask.theme");
    } catch {
      return null; // a browser that keeps nothing
    }
  }

  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  function label() {
    document.getElementById("theme").setAttribute("aria-pressed", String(isDark()));
  }

  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();

  document.addEventListener("DOMContentLoaded", () => {
    if (!document.getElementById("theme")) return; // a page without the choice
    label();
    system.addEventListener("change", label);
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      label();
      try {
        localStorage.setItem("box2mask.theme", root.dataset.theme);
      } catch {
        // then it holds for this visit
      }
    });
  });
})();
