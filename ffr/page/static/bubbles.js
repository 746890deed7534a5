// A message as a bubble, with what it carries.
import { button, make, words } from "./dom.js";

const ONLY_SIGNS = /^(?:\p{Extended_Pictographic}[\p{Emoji_Modifier}\u200d\ufe0f]*|\s){1,12}$/u;

const picture = (line, medium, isMeant, show) => {
  const name = medium.name || "picture";
  const frame = button("", () => show(line, medium), isMeant ? "picture meant" : "picture");
  frame.dataset.name = name;
  const image = make("img");
  image.alt = `picture ${name}${isMeant ? ", found" : ""}`;
  image.loading = "lazy";
  image.decoding = "async";
  image.src = `/thumbnails/${line.id}/${medium.number}`;
  image.addEventListener("error", () => {
    frame.classList.add("lost");
    image.remove();
    frame.disabled = true;
  });
  frame.append(image);
  return frame;
};

const quote = (reply, go) => {
  const element = button("", () => go(reply.place, reply.id), "quote");
  element.append(words("b", "", reply.speaker), words("span", "", reply.text));
  return element;
};

/**
 * The element of a message.
 *
 * @param line As the API has it.
 * @param found {isMarked, pictures} whether it is part of what was found, and which of its pictures (a set of numbers).
 * @param actions {show(line, medium), go(place, id)} what a picture and a quoted message do.
 */
export const bubbleOf = (line, found, actions, tag = "article") => {
  const element = make(tag, "line");
  element.dataset.line = line.id;
  element.dataset.place = line.place;
  element.classList.toggle("me", line.is_me);
  element.classList.toggle("app", !line.speaker);
  element.classList.toggle("on", line.continues);
  element.classList.toggle("found", found.isMarked);
  if (line.starts_day) element.append(make("p", "day", line.day_words));
  if (line.speaker && !line.continues) element.append(make("p", "who", words("bdi", "", line.speaker)));
  const bubble = make("div", "bubble");
  // a reader of screens hears who speaks, though eyes see it once
  if (line.continues) bubble.append(make("span", "unseen", words("bdi", "", line.speaker), ": "));
  if (line.forwarded_from) bubble.append(make("p", "forwarded", "forwarded from ", words("bdi", "", line.forwarded_from)));
  if (line.reply) bubble.append(quote(line.reply, actions.go));
  for (const medium of line.media) {
    if (medium.is_picture) bubble.append(picture(line, medium, found.pictures.has(medium.number), actions.show));
    else bubble.append(make("p", "medium", `${medium.kind} `, words("bdi", "", medium.name), medium.kind === "picture" ? " is missing" : ""));
  }
  if (!line.media.length && !line.text && line.kind !== "text") bubble.append(make("p", "medium", line.kind));
  if (line.text) bubble.append(words("p", ONLY_SIGNS.test(line.text) ? "text big" : "text", line.text));
  if (line.is_deleted) bubble.append(make("p", "gone", "taken back"));
  const meta = make("p", "meta");
  if (found.isMarked) meta.append(make("span", "badge", "found"));
  if (line.is_edited) meta.append(make("span", "", "edited"));
  const link = make("a", "", line.clock || "link");
  link.href = `#line-${line.id}`;
  link.title = "a link to this message";
  meta.append(link);
  bubble.append(meta);
  element.append(bubble);
  if (line.reactions.length) {
    const list = make("ul", "reactions");
    list.setAttribute("aria-label", "reactions");
    for (const item of line.reactions) {
      const sign = make("li", "", words("bdi", "", item.sign), item.count > 1 ? ` ${item.count}` : "");
      sign.title = item.people.join(", ");
      list.append(sign);
    }
    element.append(list);
  }
  return element;
};
