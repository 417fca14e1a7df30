// Filters, choices of what to show, and opening what a link leads to. Without it everything is shown.
(() => {
  "use strict";

  // A select that shows one of several parts.
  for (const select of document.querySelectorAll("select[data-shows]")) {
    const parts = [...document.querySelectorAll("[data-shown-by]")].filter((part) => part.dataset.shownBy === select.id);
    const show = () => parts.forEach((part) => { part.hidden = part.dataset.value !== select.value; });
    select.addEventListener("change", show);
    show();
  }

  // The leaderboard shows the lines that all filters let through, and a data set's name as long as it has one.
  const rows = [...document.querySelectorAll("#leaderboard tr[data-dataset]")];
  const filters = ["protocol", "dataset", "setting"].map((key) => ({ key, select: document.getElementById(`only-${key}`) }));
  const status = document.getElementById("shown-lines");
  const filter = () => {
    for (const row of rows) row.hidden = filters.some(({ key, select }) => select.value !== "" && select.value !== row.dataset[key]);
    for (const body of document.querySelectorAll("#leaderboard tbody")) {
      body.hidden = [...body.querySelectorAll("tr[data-dataset]")].every((row) => row.hidden);
    }
    status.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} lines shown`;
  };
  for (const { select } of filters) select.addEventListener("change", filter);
  filter();

  for (const control of document.querySelectorAll(".control")) control.hidden = false;

  // A link into something closed opens it.
  const reveal = (hash) => {
    const target = document.getElementById(hash.slice(1));
    for (let details = target?.closest("details"); details; details = details.parentElement.closest("details")) details.open = true;
    return target;
  };
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href^='#']") : null;
    if (link) reveal(link.hash);
  });
  if (location.hash.length > 1) reveal(location.hash)?.scrollIntoView();
})();
