"use strict";
// Figures: what is to be drawn stands in the page as JSON.
const look = {
  paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
  font: {family: getComputedStyle(document.body).fontFamily, size: 11},
  hoverlabel: {bgcolor: "#24292f", bordercolor: "#8c959f", font: {color: "#ffffff", size: 12}, align: "left"},
  hovermode: "closest", dragmode: false,
};
const drawn = JSON.parse(document.getElementById("drawn").textContent);
for (const place of document.querySelectorAll("[data-plot]")) {
  const {data, layout} = drawn[Number(place.dataset.plot)];
  Plotly.newPlot(place, data, {...look, ...layout}, {displayModeBar: false, showLink: false, doubleClick: false});
}
// Tables: a click on a heading sorts by it, numbers by their size and words by the alphabet.
const value = (row, column) => row.cells[column].textContent.trim();
const units = {d: 86400, h: 3600, min: 60, s: 1, ms: 1e-3, B: 1, kB: 1e3, MB: 1e6, GB: 1e9};
const amount = (text) => {
  const parts = [...text.replaceAll(",", "").matchAll(/([\d.]+) (d|h|min|ms|s|B|kB|MB|GB)\b/g)];
  return parts.length ? parts.reduce((sum, [, number, unit]) => sum + number * units[unit], 0) : parseFloat(text.replaceAll(",", ""));
};
const compare = (one, other) => {
  const [a, b] = [one, other].map(amount);
  if (Number.isNaN(a) && Number.isNaN(b)) return one.localeCompare(other);
  return Number.isNaN(a) ? -1 : Number.isNaN(b) ? 1 : a - b;
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(value(a, column), value(b, column)) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
