// The page: search and hits on the side, the chat beside them, and what keys and links do.
import { bubbleOf } from "./bubbles.js";
import { Calendar } from "./calendar.js";
import { ask, button, byId, counted, make, remember, words } from "./dom.js";
import { ChatList } from "./list.js";

const THEMES = ["system", "light", "dark"];
const LINES_OF_HIT = 8;
const NOTHING = { isMarked: false, pictures: new Set() };

let chats = [];
let hits = [];
let open = null; // the hit whose lines are marked
let marks = new Map(); // number of a message: its found pictures

const chatOf = async (id) => {
  const find = () => chats.find((chat) => chat.id === id);
  // one that was read after the page was opened
  if (!find()) await loadChats();
  return find();
};
const foundOf = (line) => (marks.has(line.id) ? { isMarked: true, pictures: marks.get(line.id) } : NOTHING);

// ---- the chat

const showPicture = (line, medium) => {
  const name = medium.name || "picture";
  byId("large-name").replaceChildren(words("bdi", "", name));
  byId("large-picture").alt = `picture ${name}`;
  byId("large-picture").src = byId("large-link").href = `/pictures/${line.id}/${medium.number}`;
  byId("large").showModal();
};
byId("large").addEventListener("close", () => byId("large-picture").removeAttribute("src"));

const list = new ChatList(byId("scroll"), byId("lines"),
  (line) => bubbleOf(line, foundOf(line), { show: showPicture, go: (place, id) => goTo(place, id) }), () => {});

const flash = (place) => {
  const element = list.lineElement(place);
  if (!element) return;
  element.classList.add("here");
  setTimeout(() => element.classList.remove("here"), 2500);
};

// what is told about the chat stands above it: on a telephone the side is not seen
let noteEnd = 0;
const note = (text, isFault = false) => {
  byId("note").textContent = text;
  byId("note").classList.toggle("fault", isFault);
  clearTimeout(noteEnd);
  noteEnd = setTimeout(() => { byId("note").textContent = ""; }, 8000);
};
const fault = (error) => { if (list.chat) note(error.message, true); else say(error.message, true); };

const openChat = async (chat, place) => {
  byId("all").classList.add("reading");
  byId("empty").hidden = true;
  byId("lines").hidden = false;
  byId("bar").hidden = false;
  const isOther = list.chat === null || list.chat.id !== chat.id;
  if (isOther) {
    byId("title").replaceChildren(words("bdi", "", chat.title));
    byId("person").replaceChildren(...chat.people.map((person) => { const it = make("option", "", person.is_me ? `${person.name} (me)` : person.name); it.value = person.key; return it; }));
    for (const element of byId("chats").querySelectorAll("button")) element.setAttribute("aria-current", String(Number(element.dataset.chat) === chat.id));
    byId("date").disabled = !chat.has_times;
    document.title = `${chat.title} – ffr`;
    await list.open(chat, place);
  } else await list.go(place, false);
};

const goTo = async (place, id) => {
  await list.go(place, true);
  flash(place);
  if (id) history.replaceState(null, "", `#line-${id}`);
};

const openLine = async (id) => {
  try {
    const line = await ask(`/api/lines/${id}`);
    await openChat(await chatOf(line.chat), line.place);
    await goTo(line.place);
  } catch (error) { fault(error); }
};

const followLink = () => {
  const found = /^#line-([0-9]+)$/.exec(location.hash);
  if (found) openLine(found[1]);
};
addEventListener("hashchange", followLink);

// ---- what was found

const mark = (hit) => {
  open = hit;
  marks = new Map(hit ? hit.lines.map((line) => [line.id, new Set()]) : []);
  for (const { line, number } of hit ? hit.pictures : []) if (marks.has(line)) marks.get(line).add(number);
  for (const [number, element] of [...byId("hits").children].entries()) element.classList.toggle("open", hits[number] === hit);
  byId("marks").hidden = !hit;
  byId("mark-count").textContent = hit ? `${hit.lines.length} found` : "";
};

const openHit = async (hit) => {
  mark(hit);
  try {
    await openChat(await chatOf(hit.chat), hit.lines[0].place);
    list.redraw();
    await goTo(hit.lines[0].place, hit.lines[0].id);
  } catch (error) { fault(error); }
};

const stepMark = (by) => {
  if (!open || !list.chat || list.chat.id !== open.chat) { if (open) openHit(open); return; }
  const places = open.lines.map((line) => line.place);
  const at = list.current === null ? -1 : list.current;
  const next = by > 0 ? places.find((place) => place > at) : places.filter((place) => place < at).pop();
  const place = next === undefined ? places[by > 0 ? 0 : places.length - 1] : next;
  goTo(place, open.lines.find((line) => line.place === place).id).catch(fault);
};

const linesOfHit = (hit, most) => {
  const lines = make("ol", "lines");
  for (const line of hit.lines.slice(0, most)) {
    const found = new Set(hit.pictures.filter((it) => it.line === line.id).map((it) => it.number));
    const element = bubbleOf(line, { isMarked: false, pictures: found }, { show: showPicture, go: (place) => openHit(hit).then(() => goTo(place)) }, "li");
    // the way into the chat for keys is the button below
    element.querySelector(".meta a").tabIndex = -1;
    if (line.num_skipped) element.prepend(make("p", "gap", `${counted(line.num_skipped, "message")} between`));
    lines.append(element);
  }
  if (hit.lines.length > most) lines.append(make("li", "line app", make("p", "gap", `and ${counted(hit.lines.length - most, "message")} more`)));
  return lines;
};

const headOf = (hit) => {
  const sure = hit.score === null ? "" : `sure by ${Math.round(100 * hit.score)} %`;
  const by = hit.found_by.includes("words") ? (hit.found_by.length > 1 ? "by meaning and words" : "by words") : "by meaning";
  const ways = Object.entries(hit.ways).map(([way, rank]) => `${way} #${rank}`).join(", ");
  const how = [ways && `recalled by ${ways}`, hit.words.length ? `it has ${hit.words.join(", ")}` : ""].filter(Boolean).join("; ");
  return make("div", "head", words("h2", "", hit.title), make("p", "when", [hit.when, sure, by].filter(Boolean).join(" · ")), how ? words("p", "when", how) : "");
};

const print = (hit) => {
  const part = make("section", "hit", headOf(hit), linesOfHit(hit, Infinity));
  byId("print").replaceChildren(part);
  // what is printed must have its pictures
  const images = [...part.querySelectorAll("img")];
  for (const image of images) image.loading = "eager";
  Promise.allSettled(images.map((image) => image.decode())).then(() => window.print());
};

const takeAlong = (hit, form, text) => {
  const link = make("a", "button", text);
  link.href = `/api/fragment?${new URLSearchParams([...hit.lines.map((line) => ["line", line.id]), ["form", form]])}`;
  link.download = `fragment.${form}`;
  link.setAttribute("aria-label", `save as ${text}`);
  return link;
};

const cardOf = (hit) => {
  const actions = make("div", "actions", button("Open in chat", () => openHit(hit), "main"), button("Print", () => print(hit)),
    takeAlong(hit, "txt", "Text"), takeAlong(hit, "json", "JSON"), takeAlong(hit, "zip", "Zip"));
  return make("li", "hit", headOf(hit), linesOfHit(hit, LINES_OF_HIT), actions);
};

const say = (text, isFault = false) => {
  byId("said").textContent = text;
  byId("said").classList.toggle("fault", isFault);
};

let turn = 0;
const search = async () => {
  const q = byId("query").value.trim();
  if (!q) { say("Say what you are looking for."); byId("query").focus(); return; }
  const mine = ++turn;
  say("Searching …");
  const values = { q, chat: byId("of-chat").value, by: byId("by").value, since: byId("since").value, until: byId("until").value, has: byId("has").value, top: byId("top-hits").value };
  let found;
  try { found = await ask("/api/search", values); } catch (error) { if (mine === turn) say(error.message, true); return; }
  if (mine !== turn) return; // a later search was begun
  hits = found.hits;
  byId("hits").replaceChildren(...hits.map(cardOf));
  mark(null);
  list.redraw();
  const more = found.num_more ? `, and ${counted(found.num_more, "more")}`.replace("mores", "more") : "";
  say(`${hits.length ? `${counted(hits.length, "hit")}${more}` : "Nothing in these chats fits"}; ${found.searched}.`);
};
byId("ask").addEventListener("submit", (event) => { event.preventDefault(); search(); });

// ---- the chats

const fillPeople = () => {
  const chosen = byId("of-chat").value;
  const names = new Set(chats.filter((chat) => !chosen || String(chat.id) === chosen).flatMap((chat) => chat.people.map((person) => person.name)));
  const options = [...names].sort((a, b) => a.localeCompare(b)).map((name) => { const it = make("option", "", name); it.value = name; return it; });
  byId("by").replaceChildren(byId("by").options[0], ...options);
};
byId("of-chat").addEventListener("change", fillPeople);

const loadChats = async () => {
  chats = (await ask("/api/chats")).chats;
  byId("chats").replaceChildren(...chats.map((chat) => {
    const element = button("", () => openChat(chat, chat.num_lines - 1).catch(fault), "chat-button");
    element.dataset.chat = chat.id;
    element.append(words("b", "", chat.title), make("span", "soft", `${chat.app}: ${chat.summary}`));
    return make("li", "", element);
  }));
  const options = chats.map((chat) => { const it = make("option", "", chat.title); it.value = chat.id; return it; });
  byId("of-chat").replaceChildren(byId("of-chat").options[0], ...options);
  fillPeople();
};

// ---- the bar

const calendar = new Calendar((day) => goTo(day.place).catch(fault));
const openCalendar = async () => {
  if (!list.chat || !list.chat.has_times) return;
  const { days } = await ask(`/api/chats/${list.chat.id}/days`);
  const place = list.current === null ? list.anchor.place : list.current;
  calendar.open(days, ([...days].filter((day) => day.place <= place).pop() || days[0]).day);
};
byId("date").addEventListener("click", () => openCalendar().catch(fault));

const stepPerson = async (back) => {
  const from = list.current === null ? list.anchor.place : list.current;
  const { place } = await ask(`/api/chats/${list.chat.id}/next`, { place: from, person: byId("person").value, back });
  if (place === null) note(back ? "Nothing of theirs before this." : "Nothing of theirs after this.");
  else await goTo(place);
};
byId("person-back").addEventListener("click", () => stepPerson(true).catch(fault));
byId("person-next").addEventListener("click", () => stepPerson(false).catch(fault));
byId("mark-back").addEventListener("click", () => stepMark(-1));
byId("mark-next").addEventListener("click", () => stepMark(1));
byId("back").addEventListener("click", () => { byId("all").classList.remove("reading"); byId("query").focus(); });
byId("show-keys").addEventListener("click", () => byId("keys").showModal());
for (const element of document.querySelectorAll("[data-close]")) element.addEventListener("click", () => element.closest("dialog").close());

const setTheme = (name) => {
  if (name === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  byId("theme").textContent = `Theme: ${name}`;
  remember.set("ffr-theme", name);
};
byId("theme").addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme || "system") + 1) % 3]));
setTheme(THEMES.includes(remember.get("ffr-theme")) ? remember.get("ffr-theme") : "system");

// ---- keys

const isIn = (event, selector) => event.target instanceof Element && event.target.closest(selector) !== null;
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isIn(event, "input, select, textarea, dialog")) return;
  const inChat = list.chat !== null && (isIn(event, "#reader") || event.target === document.body);
  const acts = {
    "/": () => { byId("all").classList.remove("reading"); byId("query").focus(); byId("query").select(); },
    n: () => stepMark(1),
    p: () => stepMark(-1),
    d: () => openCalendar().catch(fault),
    ...(inChat ? {
      j: () => list.step(1), k: () => list.step(-1), ArrowDown: () => list.step(1), ArrowUp: () => list.step(-1),
      Home: () => list.go(0, true), End: () => list.go(list.total - 1, true),
    } : {}),
    ...(isIn(event, "article") && !isIn(event, "a, button") ? {
      Enter: () => { const picture = event.target.querySelector("button.picture"); if (picture) picture.click(); },
    } : {}),
  };
  if (!acts[event.key]) return;
  event.preventDefault();
  Promise.resolve(acts[event.key]()).catch(fault);
});

loadChats().then(followLink).catch(fault);
