// The chat's page: a name first, then messages, for as long as there is a server, and again when there is one again.
//
// What others have written gets into the page by textContent alone, so it is text, whatever it looks like.
// A tab keeps its name and its key in sessionStorage: after a reload it is still the same person.

const FIRST_DELAY = 500; // milliseconds until it is tried again; each time twice as long, up to the longest
const LONGEST_DELAY = 8000;
const AT_MOST = 500; // messages kept on the page

const element = (id) => document.getElementById(id);
const status = element("status"), messages = element("messages"), people = element("people");
const join = element("join"), room = element("room"), say = element("say");
const nameField = element("name"), textField = element("text");

let socket = null;
let delay = FIRST_DELAY;
let retry = null;
let name = sessionStorage.getItem("name"); // null: not in the room, and not to be
let isIn = false; // the server has said welcome on this connection

function key() {
  let value = sessionStorage.getItem("key");
  if (!value) {
    value = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem("key", value);
  }
  return value;
}

function connect() {
  hangUp();
  tell(status, "Connecting…");
  socket = new WebSocket(location.origin.replace("http", "ws") + "/chat");
  socket.addEventListener("open", () => send({ kind: "join", name, key: key() }));
  socket.addEventListener("message", (event) => take(JSON.parse(event.data)));
  socket.addEventListener("close", lost);
}

function hangUp() {
  const former = socket;
  socket = null; // so that its end is no loss
  isIn = false;
  clearTimeout(retry);
  if (former) {
    former.close();
  }
}

function lost(event) {
  if (event.target !== socket) {
    return; // it was us
  }
  hangUp();
  tell(status, "The connection is lost. Trying again…");
  retry = setTimeout(connect, delay * (0.75 + Math.random() / 2)); // not all tabs at the same moment
  delay = Math.min(delay * 2, LONGEST_DELAY);
}

function send(message) {
  socket.send(JSON.stringify(message));
}

function take(message) {
  if (message.kind === "welcome") {
    welcome(message);
  } else if (message.kind === "said") {
    show(message);
  } else if (message.kind === "people") {
    showPeople(message.people);
    add("news", message.news);
  } else if (message.kind === "refused" && message.out) {
    leave(message.why);
  } else if (message.kind === "refused") {
    tell(element("say-error"), message.why);
  }
}

function welcome(message) {
  const isFirst = room.hidden;
  isIn = true;
  delay = FIRST_DELAY;
  name = message.name;
  sessionStorage.setItem("name", name);
  join.hidden = true;
  room.hidden = false;
  tell(status, `Connected as ${name}.`);
  showPeople(message.people);
  messages.setAttribute("aria-live", isFirst ? "off" : "polite"); // nobody wants the past read out
  message.history.forEach(show);
  setTimeout(() => messages.setAttribute("aria-live", "polite"));
  if (isFirst) {
    textField.focus();
  }
}

function leave(why) {
  hangUp();
  sessionStorage.removeItem("name");
  sessionStorage.removeItem("key"); // it may be another tab's: browsers copy both with a tab
  nameField.value = name || "";
  name = null;
  messages.replaceChildren();
  room.hidden = true;
  join.hidden = false;
  tell(status, "Not connected.");
  tell(element("join-error"), why);
  nameField.focus();
}

function showPeople(names) {
  people.replaceChildren(...names.map((who) => make("li", who)));
}

function show(said) {
  const id = "said-" + said.id;
  if (element(id)) {
    return; // a connection that was lost is given the history once more
  }
  const time = make("time", new Date(said.at * 1000).toLocaleTimeString([], { timeStyle: "short" }));
  time.dateTime = new Date(said.at * 1000).toISOString();
  add("said", time, make("b", said.name), make("span", said.text)).id = id;
}

function add(kind, ...content) {
  const follows = messages.scrollHeight - messages.scrollTop - messages.clientHeight < 40; // unless one reads above
  const item = document.createElement("li");
  item.className = kind;
  item.append(...content);
  messages.append(item);
  while (messages.childElementCount > AT_MOST) {
    messages.firstElementChild.remove();
  }
  if (follows) {
    messages.scrollTop = messages.scrollHeight;
  }
  return item;
}

function make(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  made.dir = "auto"; // what is written from right to left does not turn its neighbours round
  return made;
}

function tell(where, text) {
  where.textContent = text;
}

join.addEventListener("submit", (event) => {
  event.preventDefault();
  tell(element("join-error"), "");
  name = nameField.value;
  connect();
});

say.addEventListener("submit", (event) => {
  event.preventDefault();
  if (isIn) {
    tell(element("say-error"), "");
    send({ kind: "say", text: textField.value });
    textField.value = "";
  } else {
    tell(element("say-error"), "There is no connection just now. Your message is still here.");
  }
});

element("leave").addEventListener("click", () => leave(""));

window.addEventListener("online", () => {
  if (name !== null && socket === null) {
    connect();
  }
});

if (name === null) {
  join.hidden = false;
  nameField.focus();
} else {
  connect();
}
