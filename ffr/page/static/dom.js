// Elements, and questions to the server. Every word of a chat becomes text of an element, never markup.

export const byId = (id) => document.getElementById(id);

export const make = (tag, kind, ...inside) => {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...inside.filter((item) => item !== null && item !== ""));
  return element;
};

// somebody's words may run from right to left: they must not turn round what stands beside them
export const words = (tag, kind, text) => {
  const element = make(tag, kind, text);
  element.dir = "auto";
  return element;
};

export const button = (text, action, kind = "") => {
  const element = make("button", kind, text);
  element.type = "button";
  element.addEventListener("click", action);
  return element;
};

export const counted = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export const ask = async (path, values = {}) => {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const item of Array.isArray(value) ? value : [value]) if (item !== "") query.append(name, item);
  }
  let answer;
  try {
    answer = await fetch(`${path}?${query}`);
  } catch {
    throw new Error("ffr serve does not answer any more; start it again and open the address that it prints");
  }
  if (answer.ok) return answer.json();
  const isJson = (answer.headers.get("content-type") || "").startsWith("application/json");
  throw new Error(isJson ? (await answer.json()).error : (await answer.text()).trim());
};

export const remember = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* a browser may keep nothing */ } },
};
