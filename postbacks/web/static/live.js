// Live parts: htmx asks for the page again every 2 s; here is when it does not, and what a 304 means.
"use strict";
(() => {
  const isLive = (element) => element.hasAttribute("data-live");
  // Whoever reads, selects or types keeps what stands there.
  const isBusy = (part) => {
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && part.contains(selection.anchorNode)) return true;
    if (part.querySelector("input:checked, dialog[open], details[open] form")) return true;
    const focused = document.activeElement;
    return part.contains(focused) && focused.matches("input:not([type=checkbox]), select, textarea");
  };
  // What is read again are other elements of the same name: whoever walks by Tab stays where they are.
  let focused = "";
  const nameOf = (element) =>
    [element.tagName, element.closest("[data-row]")?.dataset.row, element.getAttribute("href"), element.value, element.textContent].join(" ");
  const setStale = (stale) => {
    document.querySelector(".stale").hidden = !stale;
  };
  document.addEventListener("htmx:beforeRequest", (event) => {
    const part = event.detail.elt;
    if (isLive(part) && (document.hidden || isBusy(part))) event.preventDefault();
  });
  document.addEventListener("htmx:configRequest", (event) => {
    const etag = event.detail.elt.dataset.etag;
    if (etag) event.detail.headers["If-None-Match"] = etag;
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr, elt } = event.detail;
    if (!isLive(elt)) return;
    // Nobody is logged in any more, or a customer's link was withdrawn.
    if ([401, 403, 410].includes(xhr.status)) location.reload();
    // What was begun while the answer was on its way stays.
    if (xhr.status !== 200 || isBusy(elt)) event.detail.shouldSwap = false;
    else {
      elt.dataset.etag = xhr.getResponseHeader("ETag") || "";
      focused = elt.contains(document.activeElement) ? nameOf(document.activeElement) : "";
    }
    setStale(xhr.status >= 400);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (!focused || !isLive(event.detail.elt)) return;
    const places = [...event.detail.elt.querySelectorAll("a, button, input, summary, [tabindex]")];
    places.find((element) => nameOf(element) === focused)?.focus({ preventScroll: true });
    focused = "";
  });
  document.addEventListener("htmx:sendError", (event) => {
    if (isLive(event.detail.elt)) setStale(true);
  });
})();
