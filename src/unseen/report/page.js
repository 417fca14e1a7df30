// Draws the figures in the reader's colours, and again when those change.
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const print = matchMedia("print");
  const coarse = matchMedia("(pointer: coarse)");
  const paperWidth = 680;
  const roomForNames = 600;

  const figures = [...document.querySelectorAll(".plot")].map((element) => ({
    element,
    specification: JSON.parse(document.getElementById(`${element.id}-data`).textContent),
  }));

  // {"css": "ink"} stands for the value of the CSS variable --ink.
  const coloured = (value, style) => {
    if (Array.isArray(value)) return value.map((inner) => coloured(inner, style));
    if (value === null || typeof value !== "object") return value;
    const keys = Object.keys(value);
    if (keys.length === 1 && keys[0] === "css") return style.getPropertyValue(`--${value.css}`).trim();
    return Object.fromEntries(keys.map((key) => [key, coloured(value[key], style)]));
  };

  const draw = () => {
    const style = getComputedStyle(root);
    for (const { element, specification } of figures) {
      const { data, layout } = coloured(specification, style);
      layout.width = print.matches ? Math.min(paperWidth, element.clientWidth) : element.clientWidth;
      // A finger that moves over a figure scrolls the page; a mouse that is dragged over it zooms in.
      layout.dragmode = coarse.matches ? false : "zoom";
      if (layout.width < roomForNames) delete layout.annotations; // the legend names them too
      layout.uirevision = "kept";
      Plotly.react(element, data, layout, {
        displaylogo: false,
        displayModeBar: coarse.matches || print.matches ? false : "hover",
        modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
      });
    }
    root.dataset.drawn = dark.matches && !print.matches ? "dark" : "light";
  };

  draw();
  dark.addEventListener("change", draw);
  print.addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar comes and goes
    width = innerWidth;
    requestAnimationFrame(draw);
  });
})();
