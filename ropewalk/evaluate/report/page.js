(() => {
  "use strict";
  const root = document.documentElement;

  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => {
    theme.textContent = isDark() ? "light" : "dark";
    theme.setAttribute("aria-label", `Show in ${theme.textContent} colours`);
  };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();

  const filter = document.getElementById("filter");
  const boxes = [...filter.querySelectorAll("input")];
  const apply = () => {
    for (const box of boxes) {
      for (const part of document.getElementsByClassName(box.value)) part.classList.toggle("off", !box.checked);
    }
  };
  const setAll = (checked) => {
    for (const box of boxes) box.checked = checked;
    apply();
  };
  filter.addEventListener("change", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("all").addEventListener("click", () => setAll(true));
  document.getElementById("none").addEventListener("click", () => setAll(false));

  // Without a script they would do nothing, so they are shown by it. A browser may have kept boxes of an earlier visit.
  theme.hidden = filter.hidden = false;
  apply();
})();
