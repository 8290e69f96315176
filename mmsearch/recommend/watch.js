(() => {
  const every = 4000;
  const state = document.getElementById("watch-state");
  const pause = document.getElementById("watch-pause");
  let seen = null, paused = false;

  // What the reader has opened, scrolled and focused stays as it was.
  const inside = (id, what) => {
    const place = document.getElementById(id);
    return place && (place.matches(what) ? place : place.querySelector(what));
  };
  const home = (element) => element.closest("[id]").id;
  const exchange = (fresh) => {
    const open = [...document.querySelectorAll("details[open]")].map(home);
    const scrolled = [...document.querySelectorAll(".scroll")].map((e) => [home(e), e.scrollLeft, e.scrollTop]);
    const focused = document.activeElement, kind = focused.matches("summary") ? "summary" : ".scroll";
    const at = focused.matches("summary, .scroll") ? home(focused) : null;
    for (const part of ["header", "nav > ul", "main", "footer"]) {
      const now = document.querySelector(part), then = fresh.querySelector(part);
      if (now && then && now.innerHTML !== then.innerHTML) {
        now.className = then.className;
        now.innerHTML = then.innerHTML;
      }
    }
    document.title = fresh.title;
    for (const id of open) {
      const details = inside(id, "details");
      if (details) details.open = true;
    }
    for (const [id, left, top] of scrolled) inside(id, ".scroll")?.scrollTo(left, top);
    if (at) inside(at, kind)?.focus({ preventScroll: true });
  };
  const look = async () => {
    if (!paused && !document.hidden) {
      try {
        const answer = await fetch(location.pathname, { headers: seen ? { "If-None-Match": seen } : {} });
        if (answer.status === 200) {
          seen = answer.headers.get("ETag");
          exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
        }
        if (answer.headers.get("X-Run") === "done") {
          state.textContent = "The run is done.";
          pause.remove();
          return;
        }
        state.textContent = answer.ok || answer.status === 304 ? "This page follows the run." : "The run cannot be read now.";
      } catch {
        state.textContent = "The server has gone; this is the last that it said.";
      }
    }
    setTimeout(look, every);
  };
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? "Go on" : "Pause";
    state.textContent = paused ? "Paused." : "This page follows the run.";
  });
  setTimeout(look, every);
})();
