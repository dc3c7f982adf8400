// Keyboard: rows are elements with data-row; data-href is where Enter leads, a checkbox in it what x selects.
"use strict";
(() => {
  let current = "";
  const rows = () => [...document.querySelectorAll("[data-row]")];
  const mark = (row) => {
    for (const other of rows()) other.classList.toggle("current", other === row);
    if (!row) return;
    current = row.dataset.row;
    history.replaceState({ row: current }, "");
    row.scrollIntoView({ block: "nearest" });
  };
  const found = () => rows().find((row) => row.dataset.row === current);
  const step = (distance) => {
    const all = rows();
    if (!all.length) return;
    const place = all.indexOf(found());
    mark(all[Math.min(all.length - 1, Math.max(0, place < 0 ? 0 : place + distance))]);
  };
  const click = (element) => {
    if (!element) return false;
    element.click();
    return true;
  };
  const keys = {
    "/": () => {
      const filter = document.querySelector("[data-filter]") || document.querySelector("[data-find]");
      if (filter) {
        filter.focus();
        filter.select();
      }
      return filter;
    },
    j: () => (step(1), true),
    k: () => (step(-1), true),
    Enter: () => {
      const row = found();
      const on = document.activeElement;
      if (!row || (on && on.matches("a, button, summary"))) return false;
      return click(row.querySelector("a[data-open]") ?? row.querySelector("a"));
    },
    x: () => click(found()?.querySelector("input[type=checkbox]")),
    r: () => click(document.querySelector("[data-resend]")),
    "?": () => {
      const help = document.getElementById("help");
      if (help.open) help.close();
      else help.showModal();
      return true;
    },
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (document.querySelector("dialog[open]") && event.key !== "?") return;
    if (Object.hasOwn(keys, event.key) && keys[event.key]()) event.preventDefault();
  });
  // A row that was read again is another element of the same name.
  document.addEventListener("htmx:afterSwap", () => mark(found()));
  // Whoever comes back stands where they were.
  current = history.state?.row ?? "";
  mark(found());
  // The browser knows the viewer's zone; without this script a list has all of them.
  const zone = document.querySelector("[data-zone]");
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && own && own !== "UTC") {
    const url = new URL(zone.href);
    const other = zone.dataset.zone === own ? "UTC" : own;
    url.searchParams.set("name", other);
    zone.href = url;
    zone.title = `Show times in ${other}`;
  }
})();
