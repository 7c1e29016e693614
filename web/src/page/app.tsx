/** The frame: the key, the tabs, the banner, the keyboard. */
import { Component, lazy, Suspense, useEffect, useMemo, useRef, useState, useSyncExternalStore, type ComponentType, type ReactNode } from "react";
import { Code, ConnectError } from "@connectrpc/connect";
import { DreyClient } from "@drey/client";
import type { WhoAmIResponse } from "../../gen/drey/access/v1/access_service_pb";
import { OverviewTab } from "./overview";
import { PvStore } from "./pv_store";
import { PvsTab } from "./pvs";
import { SessionContext, useSession, type Session } from "./session";
import { errorText } from "./words";

interface Tab {
  readonly id: string;
  readonly title: string;
  /** Typed after `g`. */
  readonly letter: string;
  readonly component: ComponentType;
  /** It scrolls by itself. */
  readonly fills: boolean;
}

// what is not seen at first is loaded afterwards, or when somebody goes there
const LATER = {
  audit: async () => ({ default: (await import("./audit")).AuditTab }),
  drift: async () => ({ default: (await import("./drift")).DriftTab }),
  jobs: async () => ({ default: (await import("./jobs")).JobsTab }),
  keys: async () => ({ default: (await import("./keys")).KeysTab }),
  policies: async () => ({ default: (await import("./policies")).PoliciesTab }),
  restore: async () => ({ default: (await import("./restore")).RestoreTab }),
  snapshots: async () => ({ default: (await import("./snapshots")).SnapshotsTab }),
} as const;
const LATER_MS = 3000;

/** Load all parts while the server is surely there, and still has those of this version. */
function useLaterParts(): void {
  useEffect(() => {
    const loadAll = () => Promise.allSettled([...Object.values(LATER).map((load) => load()), import("./plot"), import("./pv_import")]);
    const timer = setTimeout(() => void loadAll(), LATER_MS);
    return () => clearTimeout(timer);
  }, []);
}

/** A part that could not be loaded, in place of it. */
class PartBoundary extends Component<{ children: ReactNode }, { error: unknown }> {
  override state = { error: undefined as unknown };

  static getDerivedStateFromError(error: unknown) {
    return { error };
  }

  override render() {
    if (this.state.error === undefined) return this.props.children;
    return (
      <p className="error" role="alert">
        This part could not be shown: {errorText(this.state.error)}. <button onClick={() => location.reload()}>Load the page again</button>
      </p>
    );
  }
}

const TABS: readonly Tab[] = [
  { id: "overview", title: "Overview", letter: "o", component: OverviewTab, fills: false },
  { id: "pvs", title: "PVs", letter: "p", component: PvsTab, fills: true },
  { id: "snapshots", title: "Snapshots", letter: "s", component: lazy(LATER.snapshots), fills: true },
  { id: "drift", title: "Drift", letter: "d", component: lazy(LATER.drift), fills: true },
  { id: "restore", title: "Restore", letter: "r", component: lazy(LATER.restore), fills: true },
  { id: "policies", title: "Policies", letter: "l", component: lazy(LATER.policies), fills: true },
  { id: "jobs", title: "Jobs", letter: "j", component: lazy(LATER.jobs), fills: true },
  { id: "audit", title: "Audit", letter: "a", component: lazy(LATER.audit), fills: true },
  { id: "keys", title: "Keys", letter: "k", component: lazy(LATER.keys), fills: true },
];

const KEY = "drey.key";
const THEME = "drey.theme";

export function App() {
  const [key, setKey] = useState(() => sessionStorage.getItem(KEY) ?? "");
  const [who, setWho] = useState<WhoAmIResponse>();
  const [trouble, setTrouble] = useState("");
  const [attempt, setAttempt] = useState(0);
  const client = useMemo(() => new DreyClient({ url: location.origin, key }), [key]);

  useEffect(() => {
    if (key === "") return;
    const stop = new AbortController();
    client.access.whoAmI({}, { signal: stop.signal }).then(
      (answer) => {
        sessionStorage.setItem(KEY, key);
        setTrouble("");
        setWho(answer);
      },
      (error: unknown) => {
        if (stop.signal.aborted) return;
        setTrouble(errorText(error));
        // a key that is refused is forgotten; one that could not be asked about is tried again
        if (ConnectError.from(error).code === Code.Unauthenticated) forget();
        else setTimeout(() => setAttempt((count) => count + 1), 2000);
      },
    );
    return () => stop.abort();
  }, [client, key, attempt]);

  const forget = () => {
    sessionStorage.removeItem(KEY);
    setKey("");
    setWho(undefined);
  };

  if (who === undefined)
    return <KeyForm trouble={trouble} waits={key !== ""} onKey={(given) => (setTrouble(""), setKey(given))} onForget={forget} />;
  return <Page client={client} who={who} onForget={forget} />;
}

function KeyForm(props: { trouble: string; waits: boolean; onKey: (key: string) => void; onForget: () => void }) {
  const [typed, setTyped] = useState("");
  return (
    <main>
      <form
        className="panel key-form"
        onSubmit={(event) => {
          event.preventDefault();
          if (typed.trim() !== "") props.onKey(typed.trim());
        }}
      >
        <h1>Drey</h1>
        <label htmlFor="key">Your API key</label>
        <input id="key" type="password" autoComplete="off" autoFocus value={typed} onChange={(event) => setTyped(event.target.value)} />
        <p className="dim">
          It begins with <span className="mono">drey_</span>. Of the server on this machine it stands in the file{" "}
          <span className="mono">client.toml</span>; others are made by <span className="mono">drey key create</span>. This tab keeps it
          until it is closed.
        </p>
        <button className="main" disabled={props.waits}>
          {props.waits ? "Asking the server …" : "Open"}
        </button>{" "}
        {props.waits && (
          <button type="button" onClick={props.onForget}>
            Use another key
          </button>
        )}
        {props.trouble !== "" && (
          <p className="error" role="alert">
            {props.trouble}
          </p>
        )}
      </form>
    </main>
  );
}

function useHash(): string {
  const subscribe = (listener: () => void) => {
    addEventListener("hashchange", listener);
    return () => removeEventListener("hashchange", listener);
  };
  return useSyncExternalStore(subscribe, () => location.hash);
}

function Page({ client, who, onForget }: { client: DreyClient; who: WhoAmIResponse; onForget: () => void }) {
  const [session, setSession] = useState<Session>();
  useEffect(() => {
    const pvs = new PvStore(client);
    const permissions = new Set(who.permissions);
    setSession({ client, who, pvs, may: (permission) => permissions.has(permission) });
    return () => pvs.close();
  }, [client, who]);
  const hash = useHash();
  const wanted = hash.replace(/^#\/?/, "").split("/")[0];
  const tab = TABS.find(({ id }) => id === wanted) ?? TABS[0]!;
  const [helps, setHelps] = useState(false);
  const [theme, setTheme] = useTheme();
  useKeyboard(() => setHelps(true));
  useLaterParts();
  useEffect(() => {
    document.title = `${tab.title} – Drey`;
  }, [tab]);
  if (session === undefined) return null;
  const Content = tab.component;
  return (
    <SessionContext value={session}>
      <div className="app">
        <header className="top">
          <span className="brand">Drey</span>
          <nav aria-label="Parts of the page">
            {TABS.map(({ id, title, letter }) => (
              <a key={id} href={`#/${id}`} aria-current={id === tab.id ? "page" : undefined} title={`g ${letter}`}>
                {title}
              </a>
            ))}
          </nav>
          <span className="space" />
          <span className="dim">
            {who.principal} ({who.roles.join(", ")})
          </span>
          <select aria-label="Colors" value={theme} onChange={(event) => setTheme(event.target.value)}>
            <option value="">as the system</option>
            <option value="light">light</option>
            <option value="dark">dark</option>
          </select>
          <button onClick={() => setHelps(true)} title="?">
            Keyboard
          </button>
          <button onClick={onForget}>Leave</button>
        </header>
        <div aria-live="polite">
          <Banner />
        </div>
        <main className={tab.fills ? "fill" : ""}>
          <PartBoundary key={tab.id}>
            <Suspense fallback={<p>Loading …</p>}>
              <Content />
            </Suspense>
          </PartBoundary>
        </main>
        {helps && <Help onClose={() => setHelps(false)} />}
      </div>
    </SessionContext>
  );
}

/** What is wrong with the stream of values, in words; nothing while it is right. */
function Banner() {
  const { pvs } = useSession();
  useSyncExternalStore(pvs.subscribe, pvs.connection);
  const { connection, trouble, state } = pvs.watch;
  if (pvs.failure !== undefined)
    return <div className="banner">Values are not live: {errorText(pvs.failure)}. Leave, and come with another key.</div>;
  if (connection === "lost")
    return <div className="banner">Values are not live: connection lost ({trouble}). It goes on by itself as soon as the server answers.</div>;
  if (connection === "stalled") return <div className="banner warn">Values may be old: the gateway's bus is away or lags.</div>;
  if (connection === "connecting") return <div className="banner warn">Connecting …</div>;
  if (state.staleReason !== "") return <div className="banner warn">Some values are stale: {state.staleReason}.</div>;
  return null;
}

function useTheme(): [string, (theme: string) => void] {
  const [theme, setTheme] = useState(() => localStorage.getItem(THEME) ?? "");
  useEffect(() => {
    if (theme === "") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem(THEME, theme);
  }, [theme]);
  return [theme, setTheme];
}

/** `/` searches, `g` and a letter go to a tab, `?` tells of the keys. */
function useKeyboard(help: () => void): void {
  const waits = useRef(false);
  const showHelp = useRef(help);
  showHelp.current = help;
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (target.matches("input:not([type=checkbox], [type=file]), textarea, select")) {
        if (event.key === "Escape") {
          target.blur();
          event.preventDefault(); // a search stays, though the field is left
        }
        return;
      }
      const afterG = waits.current;
      waits.current = false;
      if (afterG) {
        const tab = TABS.find(({ letter }) => letter === event.key);
        if (tab !== undefined) location.hash = `#/${tab.id}`;
        return;
      }
      if (event.key === "g") waits.current = true;
      else if (event.key === "?") showHelp.current();
      else if (event.key === "/") {
        const search = document.querySelector<HTMLInputElement>("input[type=search]");
        search?.focus();
        search?.select();
        event.preventDefault();
      }
    };
    addEventListener("keydown", onKey, true);
    return () => removeEventListener("keydown", onKey, true);
  }, []);
}

function Help({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="help-title">
      <h2 id="help-title">Keyboard</h2>
      <dl className="facts">
        <dt>
          <kbd>/</kbd>
        </dt>
        <dd>search</dd>
        {TABS.map(({ title, letter }) => (
          <div key={letter} style={{ display: "contents" }}>
            <dt>
              <kbd>g</kbd> <kbd>{letter}</kbd>
            </dt>
            <dd>{title}</dd>
          </div>
        ))}
        <dt>
          <kbd>↑</kbd> <kbd>↓</kbd>
        </dt>
        <dd>move in a table; also page up, page down, home, end</dd>
        <dt>
          <kbd>p</kbd>
        </dt>
        <dd>plot the chosen PV</dd>
        <dt>
          <kbd>h</kbd>
        </dt>
        <dd>history of the chosen PV through snapshots; ↵ there opens a snapshot</dd>
        <dt>
          <kbd>Esc</kbd>
        </dt>
        <dd>leave a field, close this</dd>
      </dl>
      <p />
      <button className="main" onClick={() => dialog.current!.close()}>
        Close
      </button>
    </dialog>
  );
}
