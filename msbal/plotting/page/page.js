"use strict";
(() => {
  const data = JSON.parse(document.getElementById("records").textContent);
  const byId = (id) => document.getElementById(id);
  const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
  const CROWDED = 100; // intervals from which steps blur to a band and get their moving average
  const dark = window.matchMedia && window.matchMedia("(prefers-color-scheme: dark)").matches;
  const state = {
    runs: new Set(data.runs.map((_, place) => place)),
    levels: new Set(data.levels),
    smooth: data.options.smooth,
    loss: "mean",
    log: false,
    palette: data.options.palette,
    layout: data.options.overlay ? "overlay" : "side",
    theme: dark ? "dark" : "light",
    range: null,
  };
  let css; // the theme's colours, read once a change

  // ---------------------------------------------------------------- small helpers
  const element = (tag, attributes = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), attributes);
    made.append(...children); // text stays text: names of runs are never read as HTML
    return made;
  };
  // Plotly reads a few tags in its own labels; a run's name must not be one.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const format = (value, digits = 4) => (value == null ? "–" : String(Number(value.toPrecision(digits))));
  const onTheme = (color) => {
    // A dark line on a dark card would be lost: lift it towards white.
    const parts = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
    const light = (0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]) / 255;
    if (state.theme !== "dark" || light >= 0.38) return color;
    const lift = 0.6 - light;
    return "rgb(" + parts.map((part) => Math.round(part + (255 - part) * lift)).join(",") + ")";
  };
  const levelColor = (level) => onTheme(data.palettes[state.palette][level]);
  const actionColor = (action) => onTheme(data.actionColors[action] || "#666666");
  const groupOf = (run, name) => data.runs[run].groups.find((group) => group.name === name);
  const shownLevels = (group) => group.levels.map((level, place) => [level, place]).filter(([level]) => state.levels.has(level));

  const movingAverage = (values, span) => {
    if (span <= 1) return values;
    const sums = [0], counts = [0];
    values.forEach((value, i) => {
      sums.push(sums[i] + (value == null ? 0 : value));
      counts.push(counts[i] + (value == null ? 0 : 1));
    });
    return values.map((value, i) => {
      if (value == null) return null;
      const low = Math.max(0, i - ((span - 1) >> 1)), high = Math.min(values.length, i + (span >> 1) + 1);
      return (sums[high] - sums[low]) / (counts[high] - counts[low]);
    });
  };

  // ---------------------------------------------------------------- traces
  const line = (x, y, color, name, more = {}) => ({
    type: "scatter", mode: x.length <= 25 ? "lines+markers" : "lines", x, y, name: plain(name), connectgaps: false,
    line: { color, width: 1.6, dash: more.dash || "solid", shape: more.shape || "linear" },
    marker: { color, size: 5 }, hovertemplate: "%{y:.4~g}", ...more.trace,
  });

  const levelLines = (curves, valuesOf) => curves.flatMap(({ run, group, dash, label }) =>
    shownLevels(group).flatMap(([level, place]) => {
      const values = valuesOf(group, place), color = levelColor(level), traces = [];
      if (state.smooth > 1)
        traces.push(line(group.iteration, values, color, level, { trace: { opacity: 0.22, hoverinfo: "skip", hovertemplate: null, mode: "lines" } }));
      traces.push(line(group.iteration, movingAverage(values, state.smooth), color, label ? `${level} · ${data.runs[run].name}` : level, { dash }));
      return traces;
    }));

  // One lane a level, as in the figures; the hover gives the value, not the height.
  const lanes = ([{ group }], x, valuesOf, base, low, high, shape, mean) => {
    const traces = [], shown = shownLevels(group), scale = 0.8 / (high - low);
    const height = (lane, value) => (value == null ? null : shown.length - 1 - lane + (Math.min(high, Math.max(low, value)) - low) * scale);
    shown.forEach(([level, place], lane) => {
      const values = valuesOf(group, place), color = levelColor(level), crowded = values.length > CROWDED;
      traces.push({ type: "scatter", mode: "lines", x: [x[0], x[x.length - 1]], y: [height(lane, base), height(lane, base)], hoverinfo: "skip", line: { color: css.soft, width: 0.6 } });
      traces.push({
        type: "scatter", mode: "lines", x, y: values.map((value) => height(lane, value)), customdata: values, name: plain(level),
        line: { color, width: crowded ? 0.7 : 1.6, shape }, opacity: crowded && mean ? 0.4 : 1,
        fill: values.includes(null) ? "none" : "tonexty", fillcolor: "rgba(128,128,128,0.10)", hovertemplate: "%{customdata:.4~g}",
      });
      if (crowded && mean) {
        const span = state.smooth > 1 ? state.smooth : Math.max(1, Math.floor(values.length / 20)), average = movingAverage(values, span);
        traces.push({
          type: "scatter", mode: "lines", x, y: average.map((value) => height(lane, value)), customdata: average, name: plain(level) + " mean of " + span,
          line: { color, width: 2.2 }, hovertemplate: "%{customdata:.4~g}",
        });
      }
    });
    const yaxis = {
      tickvals: shown.map((_, lane) => height(lane, base)), range: [-0.1, shown.length], showgrid: false, zeroline: false,
      ticktext: shown.map(([level]) => plain(level)),
    };
    // Plotly lists filled traces from the last to the first; the finest level comes first here as well.
    return { traces, layout: { yaxis, legend: { traceorder: "normal" } } };
  };

  const extent = (curves, key, valueIfNone) => {
    let low = valueIfNone, high = valueIfNone;
    curves[0].peers.forEach((group) => group[key].forEach((values) => values.forEach((value) => {
      if (value != null) { low = Math.min(low, value); high = Math.max(high, value); }
    })));
    return [low, high];
  };

  /** One y scale for all runs in sight: side by side is for comparing. */
  const commonScale = (curves, valuesOf, log) => {
    let low = Infinity, high = -Infinity;
    curves[0].peers.forEach((group) => shownLevels(group).forEach(([, place]) => valuesOf(group, place).forEach((value) => {
      if (value == null || (log && value <= 0)) return;
      low = Math.min(low, value);
      high = Math.max(high, value);
    })));
    if (low > high) return { type: log ? "log" : "linear" };
    if (log) {
      const margin = 0.04 * (Math.log10(high) - Math.log10(low)) || 0.5;
      return { type: "log", range: [Math.log10(low) - margin, Math.log10(high) + margin] };
    }
    low = Math.min(0, low);
    return { type: "linear", range: [low < 0 ? low * 1.05 : 0, high * 1.05 || 1] };
  };

  // ---------------------------------------------------------------- panels: key -> {traces, layout}
  const draw = {
    loss(curves, panel) {
      const valuesOf = (group, place) => {
        const values = (panel.term ? group.lossByTerm[panel.term] || [] : group.loss)[place] || [];
        return state.loss === "sum" ? values : values.map((value, i) => (value == null || !group.count[i] ? null : value / group.count[i]));
      };
      const traces = levelLines(curves, valuesOf);
      curves.forEach(({ group }) => {
        const lost = group.nonfinite.filter((loss) => !panel.term || loss.term === panel.term);
        if (lost.length)
          traces.push({
            type: "scatter", mode: "markers", name: "not finite", x: lost.map((loss) => loss.iteration), y: lost.map(() => 1), yaxis: "y2",
            customdata: lost.map((loss) => plain(`${loss.level}/${loss.term} = ${loss.value} at ${loss.iteration}, rank ${loss.rank}`)),
            marker: { symbol: "x", size: 8, color: lost.map((loss) => (state.levels.has(loss.level) ? levelColor(loss.level) : css.soft)) },
            hovertemplate: "%{customdata}", cliponaxis: false,
          });
      });
      const title = state.loss === "sum" ? "Sum over an interval" : "Mean per iteration";
      const yaxis = { title: { text: title }, ...commonScale(curves, valuesOf, state.log), uirevision: `${state.loss} ${state.log}` };
      return { traces, layout: { yaxis, yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true } } };
    },

    weights(curves) {
      const group = curves[0].group, [low, high] = extent(curves, "weights", 1);
      const x = [group.start, ...group.iteration];
      const valuesOf = (g, place) => [g.previousWeights[place][0], ...g.weights[place]];
      return lanes(curves, x, valuesOf, 1, low, Math.max(1.1, high), "hv", true);
    },

    probabilities([{ group }]) {
      const highest = Math.max(...group.probabilities.flat().filter((value) => value != null));
      const top = Math.min(1, (Math.floor(highest * 5 + 0.25) + 1) / 5), row = 0.11 * top;
      const traces = group.actions.map((action, place) => line(group.iteration, group.probabilities[place], actionColor(action), action, { trace: { hovertemplate: "%{y:.3f}" } }));
      const rows = group.actions.map((_, place) => -(place + 1) * row);
      group.actions.forEach((action, place) => {
        const taken = group.action.flatMap((name, i) => (name === action ? [i] : []));
        traces.push({
          type: "scatter", mode: "markers", name: "took " + plain(action), x: taken.map((i) => group.iteration[i]), y: taken.map(() => rows[place]),
          customdata: taken.map((i) => ({ "1": "rewarded", "-1": "punished", "0": "no gain" })[group.outcome[i]] || "not judged yet"),
          marker: { symbol: "line-ns-open", size: 11, line: { width: 1.4, color: actionColor(action) }, color: actionColor(action), opacity: taken.map((i) => (group.outcome[i] > 0 ? 1 : 0.3)) },
          hovertemplate: "%{customdata}",
        });
      });
      const ticks = [0, 0.2, 0.4, 0.6, 0.8, 1].filter((value) => value <= top + 1e-9);
      const yaxis = { tickvals: [...ticks, ...rows], ticktext: [...ticks.map(String), ...group.actions.map(plain)], range: [rows[rows.length - 1] - row * 0.8, top], zeroline: true };
      return { traces, layout: { yaxis } };
    },

    rewards(curves) {
      const traces = curves.flatMap(({ run, group, dash, label }) => {
        const span = state.smooth > 1 ? state.smooth : Math.max(1, Math.min(25, Math.floor(group.reward.length / 5)));
        const made = [];
        if (!label)
          made.push({
            type: "scatter", mode: "markers", name: "reward", x: group.iteration, y: group.reward.map((reward) => (reward == null ? null : reward * 1.1)),
            customdata: group.reward, marker: { symbol: "line-ns-open", size: 10, line: { width: 1.2 }, color: group.reward.map((reward) => (reward > 0 ? css.good : reward < 0 ? css.bad : css.soft)) },
            hovertemplate: "%{customdata}",
          });
        made.push(line(group.iteration, movingAverage(group.reward, span), css.ink, (label ? data.runs[run].name + " · " : "") + `mean of ${span}`, { dash }));
        return made;
      });
      return { traces, layout: { yaxis: { tickvals: [-1, 0, 1], ticktext: ["−1", "0", "+1"], range: [-1.3, 1.3] } } };
    },

    variance(curves) {
      const valuesOf = (group, place) => group.variance[place].map((value) => (value > 0 ? value : null));
      const yaxis = { exponentformat: "power", title: { text: "Variance" }, ...commonScale(curves, valuesOf, true) };
      return { traces: levelLines(curves, valuesOf), layout: { yaxis } };
    },

    reduction(curves) {
      const group = curves[0].group;
      const all = curves[0].peers.flatMap((peer) => peer.varianceReduction.flat()).filter((value) => value != null).sort((a, b) => a - b);
      const at = (part) => (all.length ? all[Math.round(part * (all.length - 1))] : 0);
      return lanes(curves, group.iteration, (g, place) => g.varianceReduction[place], 0, Math.min(-0.1, at(0.01)), Math.max(0.1, at(0.99)), "vh", false);
    },

    share(curves, panel) {
      const group = curves[0].group, weighted = panel.weighted;
      const loss = group.levels.map((_, place) => group.loss[place].map((value, i) => (value == null ? null : value * (weighted ? group.previousWeights[place][i] : 1))));
      const total = group.iteration.map((_, i) => {
        const column = loss.map((values) => values[i]);
        return column.some((value) => value == null || value < 0) ? null : column.reduce((sum, value) => sum + value, 0);
      });
      // Zero where nothing is known: with steps, the band is missing over just that interval.
      const traces = shownLevels(group).map(([level, place]) => {
        const part = movingAverage(loss[place].map((value, i) => (total[i] > 0 ? value / total[i] : null)), state.smooth).map((value) => value || 0);
        const color = levelColor(level);
        return {
          type: "scatter", mode: "lines", name: plain(level), stackgroup: "share", x: [group.start, ...group.iteration], y: [part[0], ...part],
          line: { color, width: 0.4, shape: "vh" }, fillcolor: color, hovertemplate: "%{y:.1%}",
        };
      });
      return { traces, layout: { yaxis: { range: [0, 1], tickformat: ".0%", tickvals: [0, 0.25, 0.5, 0.75, 1] } } };
    },
  };

  // ---------------------------------------------------------------- cards
  const plots = new Set();
  let following = false;

  const render = (card) => {
    const { panel, curves, plot } = card;
    const { traces, layout } = draw[panel.kind](curves, panel);
    const axis = { gridcolor: css.grid, linecolor: css.line, zerolinecolor: css.line, tickfont: { size: 11 }, automargin: true };
    const start = Math.min(...curves.map(({ group }) => group.start)), end = Math.max(...curves.map(({ group }) => group.iteration[group.iteration.length - 1]));
    const whole = [start, end + 0.012 * (end - start)]; // the last mark stands clear of the edge
    const { yaxis, ...rest } = layout;
    const full = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css.ink, size: 12 }, showlegend: false,
      margin: { l: 12, r: 14, t: 8, b: 30 }, hovermode: "x unified", dragmode: "zoom", uirevision: panel.key,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css.soft, activecolor: css.ink },
      hoverlabel: { bgcolor: css.card, bordercolor: css.line, font: { color: css.ink, size: 12 } },
      xaxis: { ...axis, range: state.range || whole, tickformat: "~s", hoverformat: ",d", unifiedhovertitle: { text: "iteration %{x}" } },
      yaxis: { ...axis, ...yaxis }, ...rest,
    };
    // The buttons by name: plotly's own choice has one that would send the curves to its makers' server.
    const config = { displaylogo: false, responsive: true, displayModeBar: "hover", modeBarButtons: [["toImage", "zoom2d", "pan2d"]], doubleClick: false };
    Plotly.react(plot, traces, full, config).then(() => {
      plot.dataset.drawn = "yes";
      if (plots.has(plot)) return;
      plots.add(plot);
      plot.on("plotly_relayout", (change) => {
        if (following || change["xaxis.range[0]"] === undefined) return;
        zoom([change["xaxis.range[0]"], change["xaxis.range[1]"]]);
      });
      plot.on("plotly_doubleclick", () => zoom(null));
    });
  };

  const zoom = (range) => {
    state.range = range;
    following = true;
    cards.filter((card) => card.plot.dataset.drawn).forEach(render);
    following = false;
  };

  let cards = [];
  const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
    const card = cards.find(({ plot }) => plot === entry.target);
    if (!card) return;
    card.visible = entry.isIntersecting;
    if (card.visible && card.stale) { card.stale = false; render(card); }
  }), { rootMargin: "600px" });

  /** Draws what is in sight anew, and the rest when it comes into sight. */
  const refresh = () => {
    readTheme();
    legends();
    cards.forEach((card) => {
      card.stale = !card.visible;
      if (card.visible) render(card);
    });
  };

  /** Builds the cards for the chosen runs, and draws. */
  const rebuild = () => {
    seen.disconnect();
    plots.clear();
    cards.forEach(({ plot }) => Plotly.purge(plot));
    cards = [];
    readTheme();
    legends();
    summary();
    const chosen = [...state.runs].sort((a, b) => a - b), side = state.layout === "side" && chosen.length > 1;
    const section = element("div");
    let grid = null, heading = null;
    const several = new Set(data.panels.map((panel) => panel.group)).size > 1;
    data.panels.forEach((panel) => {
      const runs = chosen.filter((run) => { const group = groupOf(run, panel.group); return group && group.has.includes(panel.kind); });
      if (!runs.length) return;
      if (several && heading !== panel.group) { section.append(element("h2", { textContent: panel.group })); heading = panel.group; grid = null; }
      if (side || !grid) {
        grid = element("div", { className: "row" });
        grid.style.gridTemplateColumns = side ? `repeat(${chosen.length}, minmax(0, 1fr))` : "repeat(auto-fill, minmax(min(100%, 520px), 1fr))";
        section.append(grid);
      }
      const peers = runs.map((run) => groupOf(run, panel.group));
      const add = (members) => {
        const label = members.length > 1;
        const curves = members.map((run) => ({ run, group: groupOf(run, panel.group), peers, dash: label ? DASHES[run % DASHES.length] : "solid", label }));
        const plot = element("div", { className: "plot" });
        const name = members.length === 1 && chosen.length > 1 ? data.runs[members[0]].name : "";
        const head = element("h3", {}, panel.title, name ? element("span", { className: "soft", textContent: "  " + name }) : "");
        grid.append(element("section", { className: "card" }, head, element("p", { textContent: panel.says }), plot));
        plot.dataset.panel = panel.key;
        cards.push({ panel, curves, plot, stale: true, visible: false });
      };
      if (side)
        chosen.forEach((run) => (runs.includes(run) ? add([run]) : grid.append(element("section", { className: "card empty" }, `${panel.title}: nothing recorded by ${data.runs[run].name}`))));
      else if (panel.overlays) add(runs);
      else runs.forEach((run) => add([run]));
    });
    byId("panels").replaceChildren(section);
    cards.forEach(({ plot }) => seen.observe(plot));
  };

  // ---------------------------------------------------------------- around the panels
  const readTheme = () => {
    document.documentElement.dataset.theme = state.theme;
    const style = getComputedStyle(document.documentElement), value = (name) => style.getPropertyValue(name).trim();
    css = { ink: value("--ink"), soft: value("--soft"), line: value("--line"), grid: value("--grid"), card: value("--card"), good: onTheme("#2c7fb8"), bad: onTheme("#d95f0e") };
  };

  const chip = (text, mark, pressed, toggle) => {
    const made = element("button", { type: "button", className: "chip" }, mark, text);
    made.setAttribute("aria-pressed", String(pressed));
    made.addEventListener("click", toggle);
    return made;
  };
  const toggled = (set, value) => {
    if (set.has(value) && set.size > 1) set.delete(value); // the last one stays
    else set.add(value);
  };
  const dot = (color) => {
    const made = element("span", { className: "dot" });
    made.style.background = color;
    return made;
  };
  const dashSample = (run) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    made.setAttribute("width", "26");
    made.setAttribute("height", "8");
    const stroke = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const pattern = { solid: "", dash: "7 3", dot: "2 3", dashdot: "7 3 2 3", longdash: "11 3" }[DASHES[run % DASHES.length]];
    for (const [key, value] of Object.entries({ x1: 0, x2: 26, y1: 4, y2: 4, stroke: css.ink, "stroke-width": 2, "stroke-dasharray": pattern })) stroke.setAttribute(key, value);
    made.append(stroke);
    return made;
  };

  const legends = () => {
    byId("levels").replaceChildren(...data.levels.map((level) => chip(level, dot(levelColor(level)), state.levels.has(level), () => { toggled(state.levels, level); refresh(); })));
    byId("runs").replaceChildren(...(data.runs.length < 2 ? [] : data.runs.map((run, place) => chip(run.name, state.layout === "overlay" ? dashSample(place) : "", state.runs.has(place), () => { toggled(state.runs, place); rebuild(); }))));
    byId("layout-label").hidden = data.runs.length < 2;
    byId("smooth-out").textContent = state.smooth > 1 ? state.smooth : "off";
  };

  const summary = () => {
    const rows = [element("tr", {}, ...["Run", "Iterations", "Loss, first → last interval", "Weights now", "Actions taken (rewarded)"].map((text) => element("th", { textContent: text })))];
    [...state.runs].sort((a, b) => a - b).forEach((place) => {
      const run = data.runs[place];
      run.groups.forEach((group) => {
        const s = group.summary;
        const several = run.groups.length > 1 ? ` · ${group.name}` : "";
        const weights = group.levels.map((level, k) => element("span", { className: "value" }, dot(levelColor(level)), `${level} ${format(s.weights[k], 3)}`));
        const actions = s.actions.map((action) => element("span", { className: "value" }, dot(actionColor(action.name)), `${action.name} ${action.taken}`, action.judged ? element("span", { className: "soft", textContent: ` (${Math.round((100 * action.rewarded) / action.judged)}%)` }) : ""));
        const name = element("td", { title: run.source }, run.name + several);
        rows.push(element("tr", {}, name, element("td", {}, `${s.iterations.toLocaleString("en")} `, element("span", { className: "soft", textContent: `${s.intervals} × ${s.length}` })), element("td", {}, `${format(s.first)} → ${format(s.last)}`), element("td", {}, ...weights), element("td", {}, ...actions)));
      });
    });
    byId("summary").replaceChildren(...rows);
  };

  byId("notes").replaceChildren(...data.runs.flatMap((run) => run.notes.map((note) => element("div", { className: "note", textContent: `${run.name}: ${note}` }))));
  byId("palette").replaceChildren(...Object.keys(data.palettes).map((name) => element("option", { value: name, textContent: name })));
  for (const key of ["smooth", "loss", "palette", "layout"]) {
    byId(key).value = state[key];
    byId(key).addEventListener(key === "smooth" ? "input" : "change", (event) => {
      state[key] = key === "smooth" ? Number(event.target.value) : event.target.value;
      (key === "layout" ? rebuild : refresh)();
      if (key === "palette") summary();
    });
  }
  byId("log").addEventListener("change", (event) => { state.log = event.target.checked; refresh(); });
  byId("theme").addEventListener("click", () => { state.theme = state.theme === "dark" ? "light" : "dark"; refresh(); summary(); });
  rebuild();
})();
