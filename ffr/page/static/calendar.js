// A month at a time, of which the days with messages can be chosen.
import { byId, counted, make } from "./dom.js";

const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const two = (number) => String(number).padStart(2, "0");

export class Calendar {
  constructor(choose) {
    this.choose = choose;
    this.dialog = byId("calendar");
    this.body = byId("month").tBodies[0];
    byId("month-back").addEventListener("click", () => this.turn(-1));
    byId("month-next").addEventListener("click", () => this.turn(1));
    byId("year").addEventListener("change", (event) => this.draw(Number(event.target.value), this.month));
    this.body.addEventListener("keydown", (event) => this.press(event));
  }

  /** Opens at a day, as 2023-03-31. */
  open(days, day) {
    this.days = new Map(days.map((item) => [item.day, item]));
    const years = [...new Set(days.map((item) => item.day.slice(0, 4)))];
    byId("year").replaceChildren(...years.map((year) => make("option", "", year)));
    const [year, month] = (this.days.has(day) ? day : days[days.length - 1].day).split("-").map(Number);
    this.range = [days[0].day.slice(0, 7), days[days.length - 1].day.slice(0, 7)];
    this.draw(year, month);
    this.dialog.showModal();
    const chosen = this.body.querySelector(`[data-day="${day}"]`) || this.body.querySelector("button:not(:disabled)");
    if (chosen) chosen.focus();
  }

  turn(by) {
    const number = this.year * 12 + this.month - 1 + by;
    this.draw(Math.floor(number / 12), (number % 12) + 1);
  }

  draw(year, month) {
    Object.assign(this, { year, month });
    const prefix = `${String(year).padStart(4, "0")}-${two(month)}`;
    byId("month-name").textContent = `${MONTHS[month - 1]} ${year}`;
    byId("year").value = String(year).padStart(4, "0");
    byId("month-back").disabled = prefix <= this.range[0];
    byId("month-next").disabled = prefix >= this.range[1];
    const first = (new Date(Date.UTC(year, month - 1, 1)).getUTCDay() + 6) % 7;
    const length = new Date(Date.UTC(year, month, 0)).getUTCDate();
    const rows = [];
    for (let start = 1 - first; start <= length; start += 7) {
      const row = make("tr");
      for (let day = start; day < start + 7; day++) row.append(make("td", "", day < 1 || day > length ? null : this.dayButton(`${prefix}-${two(day)}`, day)));
      rows.push(row);
    }
    this.body.replaceChildren(...rows);
  }

  dayButton(name, day) {
    const found = this.days.get(name);
    const element = make("button", "", String(day));
    element.type = "button";
    element.dataset.day = name;
    element.disabled = !found;
    if (found) {
      element.setAttribute("aria-label", `${day} ${MONTHS[this.month - 1]}, ${counted(found.count, "message")}`);
      element.addEventListener("click", () => { this.dialog.close(); this.choose(found); });
    }
    return element;
  }

  press(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -7, ArrowDown: 7 }[event.key];
    if (by === undefined || !event.target.dataset.day) return;
    event.preventDefault();
    const all = [...this.body.querySelectorAll("button:not(:disabled)")];
    const at = Number(event.target.textContent);
    // the nearest day with messages on that way
    const onWay = all.filter((its) => (by > 0 ? Number(its.textContent) >= at + by : Number(its.textContent) <= at + by));
    const next = by > 0 ? onWay[0] : onWay[onWay.length - 1];
    if (next) next.focus();
    else if (!byId(by > 0 ? "month-next" : "month-back").disabled) {
      this.turn(Math.sign(by));
      const inside = [...this.body.querySelectorAll("button:not(:disabled)")];
      (inside[by > 0 ? 0 : inside.length - 1] || byId(by > 0 ? "month-next" : "month-back")).focus();
    }
  }
}
