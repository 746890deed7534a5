// The dialogues of a report: the list of queries, its filters, and the chat of the chosen one. Every text from outside goes in
// as textContent, never as markup; the only addresses that are set are the data: pictures that the page itself brings.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SYMBOLS = { hit: "✓", missed: "○", wrong: "✗", answered: "•" };
  const ROWS_AT_ONCE = 120;
  const LONG_TEXT = 1500;

  const make = (tag, kind, text) => {
    const element = document.createElement(tag);
    if (kind) element.className = kind;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  // other people's words may run right to left: they must not turn round what stands beside them
  const words = (tag, kind, text) => {
    const element = make(tag, kind, text);
    element.dir = "auto";
    return element;
  };
  // what was no id in an answer is a number of no meaning, as `ffr.answer.id_text` knows it
  const idText = (id) => (id < 2 ** 52 ? String(id) : "no id");
  const percent = (value) => (100 * value).toFixed(1);
  const jointOf = (query) => (query.u === null ? null : (query.u[2] + query.i[2]) / 2);
  const remember = {
    get(key) { try { return localStorage.getItem(key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem(key, value); } catch { /* a page from a file may have no memory */ } },
  };

  // what became of each id: hit, missed, wrong; "answered" where the truth is unknown
  const marksOf = (truth, answer) => {
    const marks = new Map();
    for (const id of answer) marks.set(id, truth === null ? "answered" : "wrong");
    for (const id of truth || []) marks.set(id, marks.has(id) ? "hit" : "missed");
    return marks;
  };
  const allMarks = (query) => [0, 1].map((part) => marksOf(query.t === null ? null : query.t[part], query.a[part]));
  const count = (marks, kind) => { let n = 0; for (const its of marks.values()) n += its === kind; return n; };

  const queries = data.queries;
  const ofDialogue = data.dialogues.map(() => []);
  for (const query of queries) {
    ofDialogue[query.d].push(query);
    const marks = allMarks(query);
    const isEmpty = (lists) => !lists[0].length && !lists[1].length;
    query.joint = jointOf(query);
    query.num = Object.fromEntries(["hit", "missed", "wrong"].map((kind) => [kind, count(marks[0], kind) + count(marks[1], kind)]));
    query.outcomes = new Set();
    if (query.t === null) query.outcomes.add("unscored");
    else {
      if (!query.num.missed && !query.num.wrong) query.outcomes.add("exact");
      if (query.num.missed) query.outcomes.add("missed");
      if (query.num.wrong) query.outcomes.add("wrong");
      if (isEmpty(query.t) && !isEmpty(query.a)) query.outcomes.add("alarm");
      if (!isEmpty(query.t) && isEmpty(query.a)) query.outcomes.add("silent");
    }
    if (query.m) query.outcomes.add("malformed");
    if (query.c) query.outcomes.add("cut");
  }
  const numLines = (query) => (data.dialogues[query.d].l || []).length;
  const searched = [];
  const textOf = (number) => {
    if (searched[number] === undefined) {
      const dialogue = data.dialogues[number];
      const said = (dialogue.l || []).flatMap(([who, parts]) => [who, ...parts.map((part) => (typeof part === "string" ? part : part[1]))]);
      searched[number] = [dialogue.id, dialogue.p || "", ...said].join("\n").toLowerCase();
    }
    return searched[number];
  };

  // ---- tabs and theme
  const showTab = (name) => {
    for (const id of ["overview", "dialogues"]) byId(id).hidden = id !== name;
    for (const tab of document.querySelectorAll(".tab")) tab.setAttribute("aria-current", String(tab.dataset.tab === name));
    window.scrollTo(0, 0);
    if (name === "dialogues" && current === null && shown.length) select(shown[0], false);
  };
  for (const tab of document.querySelectorAll(".tab")) {
    tab.addEventListener("click", () => { showTab(tab.dataset.tab); note(tab.dataset.tab === "overview" ? "overview" : current ? `q${current.n}` : "dialogues"); });
  }
  document.querySelector('[data-tab="dialogues"]').textContent = `Dialogues (${queries.length.toLocaleString("en")})`;
  const themes = ["system", "light", "dark"];
  const setTheme = (theme) => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    byId("theme").textContent = `theme: ${theme}`;
    remember.set("ffr-theme", theme);
  };
  const theme = () => document.documentElement.dataset.theme || "system";
  const nextTheme = () => setTheme(themes[(themes.indexOf(theme()) + 1) % themes.length]);
  byId("theme").addEventListener("click", nextTheme);
  setTheme(themes.includes(remember.get("ffr-theme")) ? remember.get("ffr-theme") : "system");
  const note = (hash) => { try { history.replaceState(null, "", `#${hash}`); } catch { /* not where pages may not say where they are */ } };

  // ---- filters
  const selects = [];
  const SLICES = [["by_length", "turns"], ["by_truth", "truth"], ["by_density", "density"], ["by_language", "language"]];
  for (const [kind, label] of SLICES) {
    const counts = new Map();
    for (const query of queries) counts.set(query.s[kind], (counts.get(query.s[kind]) || 0) + 1);
    if (counts.size < 2) continue;
    const select = make("select");
    select.id = `slice-${kind}`;
    const any = make("option", "", "any");
    any.value = "";
    select.append(any);
    const order = data.orders[kind] || [];
    const place = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
    for (const name of [...counts.keys()].sort((a, b) => place(a) - place(b) || (a < b ? -1 : 1))) {
      const option = make("option", "", `${name} (${counts.get(name)})`);
      option.value = name;
      select.append(option);
    }
    const holder = make("label", "", label);
    holder.append(select);
    byId("slices").append(holder);
    selects.push([kind, select]);
  }
  let cell = null; // [modality, precision step, recall step], from a circle of the scatter
  const ORDERS = {
    worst: (a, b) => (a.joint ?? 2) - (b.joint ?? 2) || b.num.missed + b.num.wrong - a.num.missed - a.num.wrong || a.n - b.n,
    best: (a, b) => (b.joint ?? -1) - (a.joint ?? -1) || b.num.hit - a.num.hit || a.n - b.n,
    data: (a, b) => a.n - b.n,
    longest: (a, b) => numLines(b) - numLines(a) || a.n - b.n,
  };
  let shown = [];
  let current = null;
  let numRows = 0;

  const applyFilters = () => {
    const text = byId("text").value.trim().toLowerCase();
    const outcome = byId("outcome").value;
    shown = queries.filter((query) =>
      (!outcome || query.outcomes.has(outcome))
      && selects.every(([kind, select]) => !select.value || query.s[kind] === select.value)
      && (!cell || (query.x && query.x[cell[0]] && query.x[cell[0]][0] === cell[1] && query.x[cell[0]][1] === cell[2]))
      && (!text || query.q.toLowerCase().includes(text) || query.k.toLowerCase().includes(text) || String(query.n) === text || textOf(query.d).includes(text)));
    shown.sort(ORDERS[byId("sort").value]);
    const scored = shown.filter((query) => query.joint !== null);
    const mean = scored.length ? `, mean F1 ${percent(scored.reduce((sum, query) => sum + query.joint, 0) / scored.length)}` : "";
    byId("count").textContent = `${shown.length.toLocaleString("en")} of ${queries.length.toLocaleString("en")} queries${mean}`;
    byId("cell").hidden = !cell;
    byId("cell").replaceChildren();
    if (cell) {
      byId("cell").append(make("span", "", `${cell[0]}s: precision about ${cell[1] / data.steps}, recall about ${cell[2] / data.steps} `));
      const drop = make("button", "", "drop");
      drop.type = "button";
      drop.addEventListener("click", () => { cell = null; applyFilters(); });
      byId("cell").append(drop);
    }
    byId("list").replaceChildren();
    byId("list").scrollTop = 0;
    numRows = 0;
    addRows(ROWS_AT_ONCE);
    if (!shown.length) {
      const none = make("li", "empty", "No query fits these filters.");
      none.setAttribute("role", "option");
      none.setAttribute("aria-disabled", "true");
      byId("list").append(none);
    }
    if (shown.length && !shown.includes(current)) {
      if (byId("dialogues").hidden) current = null;
      else select(shown[0], false);
    } else markRow();
    if (!shown.length) { current = null; byId("reader").replaceChildren(make("p", "empty", "Nothing to show; reset the filters.")); }
  };

  const grade = (joint) => (joint === null ? "" : joint >= 0.8 ? "good" : joint >= 0.4 ? "fair" : "bad");
  const addRows = (until) => {
    const fragment = document.createDocumentFragment();
    for (; numRows < Math.min(until, shown.length); numRows += 1) {
      const query = shown[numRows];
      const row = make("li", "item");
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", "false");
      row.id = `row-${numRows}`;
      row.dataset.row = numRows;
      row.append(make("span", `score ${grade(query.joint)}`, query.joint === null ? "–" : percent(query.joint)));
      row.append(words("span", "words", query.q || "(no dialogue could be read)"));
      const about = [`#${query.n}`, query.k, `${numLines(query)} turns`];
      if (query.num.missed) about.push(`${query.num.missed} missed`);
      if (query.num.wrong) about.push(`${query.num.wrong} wrong`);
      if (query.m) about.push("malformed");
      if (query.s.by_truth === "empty") about.push("truth empty");
      row.append(make("span", "about", about.join(" · ")));
      fragment.append(row);
    }
    byId("list").append(fragment);
  };
  byId("list").addEventListener("scroll", () => {
    const list = byId("list");
    if (list.scrollTop + list.clientHeight > list.scrollHeight - 600 && numRows < shown.length) addRows(numRows + ROWS_AT_ONCE);
  });
  byId("list").addEventListener("click", (event) => {
    const row = event.target.closest(".item");
    if (row) select(shown[Number(row.dataset.row)], true);
  });
  const markRow = () => {
    for (const row of byId("list").querySelectorAll('[aria-selected="true"]')) row.setAttribute("aria-selected", "false");
    byId("list").removeAttribute("aria-activedescendant");
    const place = shown.indexOf(current);
    if (place < 0) return;
    if (place >= numRows) addRows(place + ROWS_AT_ONCE);
    const row = byId("list").children[place];
    row.setAttribute("aria-selected", "true");
    byId("list").setAttribute("aria-activedescendant", row.id);
    row.scrollIntoView({ block: "nearest" });
  };

  // ---- the chat
  let onlyMarked = false;
  const mark = (kind) => make("span", `mark ${kind}`, `${SYMBOLS[kind]} ${kind}`);
  const figure = (name, figures, marks) => {
    const box = make("span");
    box.append(make("b", "", `${name}: `));
    box.append(figures === null ? "truth unknown" : `P ${percent(figures[0])}  R ${percent(figures[1])}  F1 `);
    if (figures !== null) box.append(make("b", grade(figures[2]), percent(figures[2])));
    const parts = ["hit", "missed", "wrong"].map((kind) => [count(marks, kind), kind]).filter(([n]) => n).map(([n, kind]) => `${n} ${kind}`);
    if (parts.length) box.append(make("span", "meta", `  (${parts.join(", ")})`));
    return box;
  };
  const longText = (text) => {
    if (text.length <= LONG_TEXT) return document.createTextNode(text);
    const holder = make("span");
    const start = document.createTextNode(`${text.slice(0, LONG_TEXT)}…`);
    const more = make("button", "more", `show all ${text.length.toLocaleString("en")} characters`);
    more.type = "button";
    more.addEventListener("click", () => holder.replaceChildren(document.createTextNode(text)));
    holder.append(start, more);
    return holder;
  };
  const picture = (number, caption, id, kind, beside) => {
    const box = make("span", `picture ${kind || ""}`);
    const [source, width, height] = data.pictures[number];
    if (width) {
      const img = make("img");
      img.width = width;
      img.height = height;
      img.alt = caption || (beside ? `image ${id}, sent with: ${beside.slice(0, 120)}` : `image ${id}`);
      img.decoding = "async";
      img.src = source;
      box.append(img);
    } else {
      const lost = make("span", "lost", "picture could not be opened");
      lost.title = source;
      lost.append(make("br"), document.createTextNode(source));
      box.append(lost);
    }
    const under = make("span", "under");
    if (kind) under.append(mark(kind));
    under.append(make("span", "", `image ${id}`));
    if (caption) under.append(words("bdi", "", caption));
    box.append(under);
    return box;
  };
  const buildLine = (line, id, firstImage, marks, sides) => {
    const [speaker, parts] = line;
    const kind = marks[0].get(id);
    const row = make("div", `line ${kind || ""} ${sides.get(speaker) === 1 ? "right" : ""}`);
    row.dataset.line = id;
    const face = make("span", "face", [...speaker.trim()].filter((char) => /[\p{L}\p{N}]/u.test(char)).slice(0, 1).join("").toUpperCase() + ((/\d+$/.exec(speaker) || [""])[0].slice(0, 2)));
    face.style.setProperty("--hue", (210 + 137 * sides.get(speaker)) % 360);
    face.ariaHidden = "true";
    const said = make("div", "said");
    const who = make("div", "who");
    who.append(words("bdi", "", speaker), make("span", "", `${id}`));
    if (kind) who.append(mark(kind));
    const bubble = words("div", "bubble");
    let image = firstImage;
    const beside = parts.filter((part) => typeof part === "string").join(" ").trim();
    for (const part of parts) {
      if (typeof part === "string") bubble.append(longText(part));
      else { bubble.append(picture(part[0], part[1], image, marks[1].get(image), beside)); image += 1; }
    }
    if (!parts.length) bubble.append(make("span", "meta", "(nothing)"));
    said.append(who, bubble);
    row.append(face, said);
    return row;
  };

  const buildChat = (query, marks) => {
    const dialogue = data.dialogues[query.d];
    const chat = make("div", "chat");
    if (!dialogue.l) {
      chat.append(make("p", "meta", "The prompt of this answer cannot be read as a dialogue; here it stands as it is."));
      const pre = words("pre");
      pre.append(longText(dialogue.p));
      chat.append(pre);
      return chat;
    }
    const sides = new Map();
    for (const [speaker] of dialogue.l) if (!sides.has(speaker)) sides.set(speaker, sides.size);
    let image = 0;
    const firstImage = dialogue.l.map(([, parts]) => { const first = image; image += parts.filter((part) => typeof part !== "string").length; return first; });
    const isMarked = dialogue.l.map(([, parts], id) => marks[0].has(id) || parts.filter((part) => typeof part !== "string").some((_, k) => marks[1].has(firstImage[id] + k)));
    const isNear = (id) => isMarked[id] || isMarked[id - 1] || isMarked[id + 1];
    for (let id = 0; id < dialogue.l.length; id += 1) {
      if (!onlyMarked || isNear(id)) { chat.append(buildLine(dialogue.l[id], id, firstImage[id], marks, sides)); continue; }
      let end = id;
      while (end < dialogue.l.length && !isNear(end)) end += 1;
      const [from, to] = [id, end];
      const skip = make("button", "skip", `⋯ ${to - from} ${to - from > 1 ? "lines" : "line"} without a mark`);
      skip.type = "button";
      skip.addEventListener("click", () => {
        const lines = document.createDocumentFragment();
        for (let at = from; at < to; at += 1) lines.append(buildLine(dialogue.l[at], at, firstImage[at], marks, sides));
        skip.replaceWith(lines);
      });
      chat.append(skip);
      id = end - 1;
    }
    return chat;
  };

  const buildStrip = (query, marks) => {
    const strip = make("div", "strip");
    strip.title = "the dialogue from beginning to end; click to go there";
    strip.ariaHidden = "true";
    let image = 0;
    (data.dialogues[query.d].l || []).forEach(([, parts], id) => {
      let kind = marks[0].get(id);
      for (const part of parts) if (typeof part !== "string") { kind = kind || marks[1].get(image); image += 1; }
      const tick = make("i", kind || "");
      tick.dataset.to = id;
      strip.append(tick);
    });
    strip.addEventListener("click", (event) => { if (event.target.dataset.to) goTo(Number(event.target.dataset.to)); });
    return strip;
  };
  const goTo = (id) => {
    const reader = byId("reader");
    let row = reader.querySelector(`[data-line="${id}"]`);
    if (!row) { for (const skip of reader.querySelectorAll(".skip")) skip.click(); row = reader.querySelector(`[data-line="${id}"]`); }
    if (!row) return;
    for (const old of reader.querySelectorAll(".here")) old.classList.remove("here");
    row.classList.add("here");
    row.scrollIntoView({ block: "center" });
  };
  const goToMark = (step) => {
    const rows = [...byId("reader").querySelectorAll(".line")].filter((row) => row.querySelector(".mark"));
    if (!rows.length) return;
    const at = rows.findIndex((row) => row.classList.contains("here"));
    goTo(Number(rows[at < 0 ? (step > 0 ? 0 : rows.length - 1) : (at + step + rows.length) % rows.length].dataset.line));
  };

  // a long dialogue opens where something is to be seen, and not at its first line
  const showFirstMark = () => {
    const first = [...byId("reader").querySelectorAll(".line")].find((row) => row.querySelector(".mark"));
    if (!first) return;
    const { bottom } = first.getBoundingClientRect();
    if (bottom > window.innerHeight) goTo(Number(first.dataset.line));
  };

  const read = (query) => {
    const marks = allMarks(query);
    const dialogue = data.dialogues[query.d];
    const head = make("div", "head");
    head.append(words("h2", "", query.q || `answer ${query.n}`));
    const about = make("div", "meta");
    const slices = [`${(dialogue.l || []).length} turns`];
    if (query.s.by_density !== "unknown") slices.push(`density ${query.s.by_density}`);
    if (query.s.by_truth === "empty") slices.push("truth empty: nothing in the dialogue fits");
    if (query.s.by_language !== "unknown") slices.push(query.s.by_language);
    about.append(`#${query.n} · `, words("bdi", "", query.k), ` · ${slices.join(" · ")}`);
    head.append(about);
    const figures = make("div", "figures");
    figures.append(figure("utterances", query.u, marks[0]), figure("images", query.i, marks[1]));
    head.append(figures);
    if (query.w.length) head.append(make("div", "note warn", `The answer: ${query.w.join(", ")}${query.c ? "; cut off at the longest length" : ""}.`));
    else if (query.c) head.append(make("div", "note warn", "The answer was cut off at the longest length."));
    const numImages = (dialogue.l || []).reduce((sum, [, parts]) => sum + parts.filter((part) => typeof part !== "string").length, 0);
    const beyond = dialogue.l ? [["utterance", query.a[0].filter((id) => id >= dialogue.l.length)], ["image", query.a[1].filter((id) => id >= numImages)]].filter(([, ids]) => ids.length) : [];
    for (const [name, ids] of beyond) head.append(make("div", "note warn", `The answer names ${name} ids that the dialogue does not have: ${ids.slice(0, 50).map(idText).join(", ")}${ids.length > 50 ? ", …" : ""}.`));
    const details = make("details");
    details.append(make("summary", "", "the answer and the truth as ids"));
    const pre = words("pre");
    const list = (lists) => (lists === null ? "unknown" : `utterances [${lists[0].map(idText).join(", ")}], images [${lists[1].map(idText).join(", ")}]`);
    pre.append(`truth:  ${list(query.t)}\nanswer: ${list(query.a)}\nas it came: `, longText(query.r || "(nothing)"));
    details.append(pre);
    head.append(details);
    const others = ofDialogue[query.d];
    if (others.length > 1) {
      const siblings = make("div", "siblings");
      siblings.append(make("span", "meta", `${others.length} queries on this dialogue:`));
      for (const other of others) {
        const button = words("button", "", `${other.joint === null ? "–" : percent(other.joint)}  ${other.q}`);
        button.type = "button";
        button.title = other.q;
        if (other === query) button.setAttribute("aria-current", "true");
        button.addEventListener("click", () => select(other, true));
        siblings.append(button);
      }
      head.append(siblings);
    }
    const bar = make("div", "bar-top");
    const tools = make("div", "tools");
    const button = (text, title, action) => {
      const made = make("button", "", text);
      made.type = "button";
      made.title = title;
      made.addEventListener("click", action);
      tools.append(made);
      return made;
    };
    button("‹ list", "back to the list", () => document.body.classList.remove("reading")).id = "back";
    button("↑", "the query before (k, ←)", () => step(-1));
    button("↓", "the next query (j, →)", () => step(1));
    button("next mark", "the next line with a mark (n; p for the one before)", () => goToMark(1));
    const only = button("around the marks", "only lines with a mark and their neighbours (m)", () => { onlyMarked = !onlyMarked; read(query); });
    only.setAttribute("aria-pressed", String(onlyMarked));
    if (onlyMarked) only.textContent = "all lines";
    tools.append(make("span", "gap"));
    for (const kind of query.t === null ? ["answered"] : ["hit", "missed", "wrong"]) tools.append(mark(kind));
    bar.append(tools, buildStrip(query, marks));
    byId("reader").replaceChildren(head, bar, buildChat(query, marks));
  };

  const select = (query, isChosen) => {
    current = query;
    read(query);
    byId("reader").scrollTop = 0;
    showFirstMark();
    markRow();
    if (isChosen) { document.body.classList.add("reading"); note(`q${query.n}`); }
  };
  const step = (by) => {
    if (!shown.length) return;
    const at = shown.indexOf(current);
    select(shown[Math.min(Math.max(at + by, 0), shown.length - 1)], true);
  };

  // ---- keys
  const DOT_STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "Escape") { if (typing) event.target.blur(); else document.body.classList.remove("reading"); return; }
    if (typing) return;
    if (event.target.matches(".dot") && (event.key === "Enter" || event.key === " ")) { chooseCell(event.target); event.preventDefault(); return; }
    if (event.target.matches(".dot") && DOT_STEPS[event.key]) { stepDot(event.target, DOT_STEPS[event.key]); event.preventDefault(); return; }
    if (event.key === "t") { nextTheme(); return; }
    if (event.key === "/") { showTab("dialogues"); document.body.classList.remove("reading"); byId("text").focus(); event.preventDefault(); return; }
    if (byId("dialogues").hidden) { if (event.key === "j" || event.key === "k") showTab("dialogues"); return; }
    const actions = { j: () => step(1), k: () => step(-1), ArrowRight: () => step(1), ArrowLeft: () => step(-1), n: () => goToMark(1), p: () => goToMark(-1), m: () => { onlyMarked = !onlyMarked; if (current) read(current); } };
    if (event.target === byId("list")) Object.assign(actions, { ArrowDown: () => step(1), ArrowUp: () => step(-1) });
    if (actions[event.key]) { actions[event.key](); event.preventDefault(); }
  });
  byId("filters").addEventListener("input", () => { current = null; applyFilters(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => { cell = null; current = null; setTimeout(applyFilters); });
  const chooseCell = (dot) => {
    const [modality, precision, recall] = dot.dataset.cell.split(" ");
    cell = [modality, Number(precision), Number(recall)];
    current = null;
    applyFilters();
    showTab("dialogues");
  };
  for (const dot of document.querySelectorAll(".dot")) dot.addEventListener("click", () => chooseCell(dot));
  // one stop of the tab key for a plot; within it the arrows go from circle to circle
  const stepDot = (dot, by) => {
    const dots = [...dot.closest("svg").querySelectorAll(".dot")];
    const next = dots[(dots.indexOf(dot) + by + dots.length) % dots.length];
    dot.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  };

  // ---- begin
  // hidden, so that no dialogue is chosen and scrolled to before one is asked for
  byId("dialogues").hidden = true;
  byId("filters").reset();
  applyFilters();
  const open = () => {
    const asked = /^#q(\d+)$/.exec(location.hash);
    const found = asked && queries.find((query) => query.n === Number(asked[1]));
    if (found) { showTab("dialogues"); select(found, true); }
    else showTab(["dialogues", "overview"].find((name) => location.hash === `#${name}`) || data.opens);
  };
  window.addEventListener("hashchange", open);
  open();
})();
