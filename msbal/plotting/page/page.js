"use strict";
// Plotly's own buttons reach only the figure that they stand in: this applies the controls and a zoom to all of them.
(() => {
  const { figures, palettes } = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement, form = document.getElementById("controls"), panels = document.getElementById("panels");
  const cards = [...document.querySelectorAll(".plot")].map((plot, n) => ({ plot, box: plot.closest(".card"), figure: figures[n] }));
  const config = { displaylogo: false, responsive: true, doubleClick: false, modeBarButtons: [["toImage", "zoom2d", "pan2d"]] };
  let now, zoomed = null, resets = 0;

  const average = (values, span) => values.map((value, i) => {
    if (span <= 1 || value === null) return value;
    const near = values.slice(Math.max(0, i - ((span - 1) >> 1)), i + (span >> 1) + 1).filter((other) => other !== null);
    return near.reduce((sum, other) => sum + other, 0) / near.length;
  });

  const traces = ({ figure }) => figure.data.map((trace) => {
    const { level, run, span, ifSmoothed, count } = trace.meta, color = level ? palettes[now.palette][level] : (trace.line || trace.marker).color;
    const steps = span && now.smooth > 1 ? now.smooth : span, y = now.sum && count ? trace.y.map((value, i) => value && value * count[i]) : trace.y;
    return {
      ...trace, y: average(y, steps), customdata: span && trace.customdata ? average(trace.customdata, steps) : trace.customdata,
      visible: now.runs.includes(run) && (!level || now.levels.includes(level)) && (!ifSmoothed || now.smooth > 1),
      line: { ...trace.line, color }, marker: { ...trace.marker, color }, fillcolor: trace.stackgroup ? color : trace.fillcolor,
    };
  });

  // One y scale for the runs of a row, from the levels in sight: side by side is for comparing.
  const scale = ({ auto, log, panel }) => {
    if (!auto) return {};
    const type = log || now.log ? "log" : "linear";
    let low = Infinity, high = -Infinity;
    for (const peer of cards) if (!peer.box.hidden && peer.figure.layout.meta.panel === panel)
      for (const { visible, yaxis, y } of traces(peer)) if (visible && yaxis !== "y2")
        for (const value of y) if (value !== null && (type === "linear" || value > 0)) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low > high) return { type };
    [low, high] = type === "log" ? [Math.log10(low), Math.log10(high)] : [Math.min(0, low), high];
    const margin = 0.04 * (high - low) || 0.5;
    return { type, range: [type === "linear" && low === 0 ? 0 : low - margin, high + margin] };
  };

  const draw = (card) => {
    const { layout } = card.figure, { meta } = layout, first = !card.plot.dataset.drawn, uirevision = [resets, now.log, now.sum].join();
    card.stale = false;
    const title = now.sum && layout.yaxis.title.text === "Mean loss per iteration" ? { text: "Loss of an interval" } : layout.yaxis.title;
    const full = { ...layout, xaxis: { ...layout.xaxis, range: [...(zoomed || meta.x)] }, yaxis: { ...layout.yaxis, ...scale(meta), title, uirevision } };
    Plotly.react(card.plot, traces(card), full, config).then(() => {
      card.plot.dataset.drawn = "yes";
      if (!first) return;
      card.plot.on("plotly_relayout", (change) => { if ("xaxis.range[0]" in change) zoom([change["xaxis.range[0]"], change["xaxis.range[1]"]]); });
      card.plot.on("plotly_doubleclick", () => { resets += 1; zoom(null); });
    });
  };
  const drawAll = () => cards.forEach((card) => { card.stale = true; if (card.visible) draw(card); });
  const zoom = (range) => { zoomed = range; drawAll(); };
  const seen = new IntersectionObserver((entries) => entries.forEach(({ target, isIntersecting }) => {
    const card = cards.find(({ plot }) => plot === target);
    card.visible = isIntersecting;
    if (isIntersecting && card.stale) draw(card);
  }), { rootMargin: "600px" });

  const refresh = () => {
    const chosen = new FormData(form), smooth = Number(chosen.get("smooth"));
    now = { levels: chosen.getAll("level"), runs: chosen.getAll("run"), smooth, sum: chosen.get("loss") === "sum", log: chosen.has("log"), palette: chosen.get("palette"), layout: chosen.get("layout") };
    panels.className = now.layout === "side" && now.runs.length > 1 ? "side" : "flow";
    document.getElementById("smooth-out").textContent = smooth > 1 ? smooth : "off";
    for (const { style, dataset } of document.querySelectorAll(".dot")) if (dataset.level) style.background = palettes[now.palette][dataset.level];
    for (const one of document.querySelectorAll("[data-run]"))
      one.hidden = (one.dataset.run && !now.runs.includes(one.dataset.run)) || (one.dataset.layout && one.dataset.layout !== now.layout);
    drawAll();
  };
  form.elements.smooth.addEventListener("input", refresh);
  form.addEventListener("change", ({ target }) => {
    if (target.type === "checkbox" && target.name !== "log" && !new FormData(form).has(target.name)) target.checked = true; // the last one stays
    refresh();
  });
  root.dataset.theme = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.getElementById("theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; });
  refresh();
  cards.forEach(({ plot }) => seen.observe(plot));
})();
