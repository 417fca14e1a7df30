// Draws the figures in the reader's colours, and again when those change. A figure with data-later waits until the reader
// comes near it, or prints.
(() => {
  "use strict";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const print = matchMedia("print");
  const coarse = matchMedia("(pointer: coarse)");
  const paperWidth = 680;
  const narrowWidth = 480;
  const usualRoomForNames = 600;

  const figures = [...document.querySelectorAll(".plot")].map((element) => ({
    element,
    near: element.dataset.later === undefined,
    specification: null,
    drawnFor: "",
  }));

  // {"css": "ink"} stands for the value of the CSS variable --ink.
  const coloured = (value, style) => {
    if (Array.isArray(value)) return value.map((inner) => coloured(inner, style));
    if (value === null || typeof value !== "object") return value;
    const keys = Object.keys(value);
    if (keys.length === 1 && keys[0] === "css") return style.getPropertyValue(`--${value.css}`).trim();
    return Object.fromEntries(keys.map((key) => [key, coloured(value[key], style)]));
  };

  // Small plots side by side, as many as fit: the columns, and the height of all of them.
  const arranged = ({ count, least, height, extra }, width) => {
    const fit = Math.max(1, Math.min(count, Math.floor(width / least)));
    const rows = Math.ceil(count / fit);
    return { rows, columns: Math.ceil(count / rows), height: rows * height + extra };
  };

  // Keep the place of figures that are not drawn yet, so that nothing moves when they are.
  const reserve = () => {
    const main = document.querySelector("main");
    const width = main.clientWidth - 2 * parseFloat(getComputedStyle(main).paddingLeft);
    for (const { element } of figures) {
      if (element.dataset.later === undefined) continue;
      const { facets, height, narrow } = JSON.parse(element.dataset.later);
      const needed = facets ? arranged(facets, width).height : width < narrowWidth ? narrow : height;
      element.style.minHeight = `${needed}px`;
    }
  };

  // Plotly's code lies in the page as text and runs when the first figure is drawn: reading it takes longer than the rest.
  const plotly = () => {
    const text = document.getElementById("plotly");
    if (text === null) return;
    const script = document.createElement("script");
    script.textContent = text.textContent;
    text.replaceWith(script);
  };

  const scheme = () => (dark.matches && !print.matches ? "dark" : "light");

  const drawOne = (figure, style) => {
    const { element } = figure;
    const drawnFor = `${scheme()} ${print.matches} ${element.clientWidth}`;
    if (figure.drawnFor === drawnFor) return;
    figure.drawnFor = drawnFor;
    figure.specification ??= JSON.parse(document.getElementById(`${element.id}-data`).textContent);
    const { facets, narrow, roomForNames = usualRoomForNames } = figure.specification.arrange ?? {};
    const { data, layout } = coloured(figure.specification, style);
    layout.width = print.matches ? Math.min(paperWidth, element.clientWidth) : element.clientWidth;
    if (layout.width < narrowWidth) Object.assign(layout, coloured(narrow ?? {}, style));
    let widthOfOne = layout.width;
    if (facets) {
      const { rows, columns, height } = arranged(facets, layout.width);
      Object.assign(layout.grid, { rows, columns });
      layout.height = height;
      widthOfOne /= columns;
    }
    // A finger that moves over a figure scrolls the page; a mouse that is dragged over it zooms in.
    layout.dragmode = coarse.matches ? false : "zoom";
    // The legend or the table names the classes too.
    if (widthOfOne < roomForNames) layout.annotations = (layout.annotations ?? []).filter(({ name }) => name !== "class");
    layout.uirevision = "kept";
    plotly();
    Plotly.react(element, data, layout, {
      displaylogo: false,
      displayModeBar: coarse.matches || print.matches ? false : "hover",
      modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
    });
  };

  // One figure that cannot be drawn must not keep the others from it.
  const tryToDraw = (figure, style) => {
    try {
      drawOne(figure, style);
    } catch (error) {
      reportError(error);
    }
  };

  const shown = ({ element }) => element.offsetParent !== null;

  const draw = () => {
    const style = getComputedStyle(root);
    for (const figure of figures) if (shown(figure) && (figure.near || print.matches)) tryToDraw(figure, style);
    root.dataset.drawn = scheme();
  };

  reserve();
  draw();
  // What comes near is drawn one figure at a time, so that the first is there while the others are still being drawn.
  const waiting = [];
  const drawNext = () => {
    const figure = waiting.shift();
    if (shown(figure)) tryToDraw(figure, getComputedStyle(root));
    if (waiting.length) setTimeout(drawNext);
  };
  const approach = new IntersectionObserver((entries) => {
    const come = new Set(entries.filter(({ isIntersecting }) => isIntersecting).map(({ target }) => target));
    const idle = !waiting.length;
    for (const figure of figures) {
      if (!come.has(figure.element)) continue;
      figure.near = true;
      waiting.push(figure);
    }
    if (idle && waiting.length) setTimeout(drawNext);
  }, { rootMargin: "500px 0px" });
  for (const { element, near } of figures) if (!near) approach.observe(element);
  addEventListener("load", () => setTimeout(plotly, 300)); // the reader is likely to come to a figure
  dark.addEventListener("change", draw);
  print.addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar comes and goes
    width = innerWidth;
    requestAnimationFrame(() => { reserve(); draw(); });
  });
})();
