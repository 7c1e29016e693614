/**
 * A table of any number of rows of one height. Only those in view are in the document, and they are drawn
 * once a frame, past React: thousands of cells change each second.
 */
import { useEffect, useRef } from "react";

export interface Column {
  readonly title: string;
  /** As in `grid-template-columns`. */
  readonly width: string;
  readonly className?: string;
}

export type Draw = (index: number, cells: HTMLElement[], row: HTMLElement) => void;

export interface GridProps {
  readonly label: string;
  readonly columns: readonly Column[];
  readonly count: number;
  readonly draw: Draw;
  /** What makes a redraw needed when it changes, asked each frame. */
  readonly version?: () => number;
  readonly chosen: number;
  readonly onChoose: (index: number) => void;
  readonly onKey?: (key: string, index: number) => boolean;
  readonly empty: string;
}

const ROW = 26;
const HEAD = 30;
const MARGIN = 6;

/** Set text and class of a cell, where they are others. */
export function setCell(cell: HTMLElement, text: string, className = "", title = ""): void {
  if (cell.textContent !== text) cell.textContent = text;
  const whole = className === "" ? cell.dataset.base! : `${cell.dataset.base} ${className}`;
  if (cell.className !== whole) cell.className = whole;
  if (cell.title !== title) cell.title = title;
}

/** As `setCell`, in a box that shows what state it is by colour besides its words. */
export function setMark(cell: HTMLElement, text: string, className: string, title = ""): void {
  let mark = cell.firstElementChild as HTMLElement | null;
  if (mark === null) {
    cell.replaceChildren();
    mark = cell.appendChild(document.createElement("span"));
  }
  if (mark.textContent !== text) mark.textContent = text;
  if (mark.className !== `mark ${className}`) mark.className = `mark ${className}`;
  if (cell.title !== title) cell.title = title;
}

class GridView {
  props!: GridProps;
  #rows: { element: HTMLElement; cells: HTMLElement[]; index: number }[] = [];
  #drawn = NaN;
  #dirty = true;
  #frame = 0;
  readonly #scroll: HTMLElement;
  readonly #body: HTMLElement;
  readonly #id: string;

  constructor(scroll: HTMLElement, body: HTMLElement, id: string) {
    this.#scroll = scroll;
    this.#body = body;
    this.#id = id;
    const loop = () => {
      this.#frame = requestAnimationFrame(loop);
      const version = this.props.version?.() ?? 0;
      if (!this.#dirty && version === this.#drawn) return;
      this.#dirty = false;
      this.#drawn = version;
      this.#draw();
    };
    this.#frame = requestAnimationFrame(loop);
  }

  close(): void {
    cancelAnimationFrame(this.#frame);
  }

  refresh = (): void => {
    this.#dirty = true;
  };

  show(index: number): void {
    const top = index * ROW;
    const { scrollTop } = this.#scroll;
    const height = this.#scroll.clientHeight - HEAD;
    if (top < scrollTop) this.#scroll.scrollTop = top;
    else if (top + ROW > scrollTop + height) this.#scroll.scrollTop = top + ROW - height;
  }

  get pageRows(): number {
    return Math.max(1, Math.floor(this.#scroll.clientHeight / ROW) - 1);
  }

  #draw(): void {
    const { count, columns, draw, chosen } = this.props;
    this.#body.style.height = `${count * ROW}px`;
    const first = Math.max(0, Math.floor(this.#scroll.scrollTop / ROW) - MARGIN);
    const shown = Math.min(count - first, Math.ceil(this.#scroll.clientHeight / ROW) + 2 * MARGIN);
    while (this.#rows.length < shown) this.#rows.push(this.#makeRow(columns));
    while (this.#rows.length > Math.max(0, shown)) this.#rows.pop()!.element.remove();
    for (let place = 0; place < shown; place++) {
      // a row keeps its element while it is in view
      const index = first + place;
      const row = this.#rows[index % this.#rows.length]!;
      if (row.index !== index) {
        row.index = index;
        row.element.style.transform = `translateY(${index * ROW}px)`;
        row.element.id = `${this.#id}-${index}`;
        row.element.ariaRowIndex = String(index + 2);
      }
      row.element.className = `grid-row${index % 2 ? " odd" : ""}${index === chosen ? " chosen" : ""}`;
      row.element.ariaSelected = String(index === chosen);
      draw(index, row.cells, row.element);
    }
  }

  #makeRow(columns: readonly Column[]) {
    const element = document.createElement("div");
    element.role = "row";
    element.style.gridTemplateColumns = template(columns);
    const cells = columns.map(({ className }) => {
      const cell = element.appendChild(document.createElement("div"));
      cell.role = "gridcell";
      cell.dataset.base = className ?? "";
      cell.className = className ?? "";
      return cell;
    });
    const row = { element, cells, index: -1 };
    element.addEventListener("click", () => this.props.onChoose(row.index));
    this.#body.append(element);
    return row;
  }
}

const template = (columns: readonly Column[]) => columns.map(({ width }) => width).join(" ");

let grids = 0;

export function Grid(props: GridProps) {
  const scroll = useRef<HTMLDivElement>(null);
  const head = useRef<HTMLDivElement>(null);
  const body = useRef<HTMLDivElement>(null);
  const view = useRef<GridView>(null);
  const id = useRef("");
  if (id.current === "") id.current = `grid${++grids}`;

  useEffect(() => {
    const made = new GridView(scroll.current!, body.current!, id.current);
    made.props = props;
    view.current = made;
    const sizes = new ResizeObserver(made.refresh);
    sizes.observe(scroll.current!);
    return () => {
      sizes.disconnect();
      made.close();
      body.current?.replaceChildren();
    };
    // columns of one table never change
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, []);
  useEffect(() => {
    view.current!.props = props;
    view.current!.refresh();
    head.current!.style.gridTemplateColumns = template(props.columns);
  });

  const onKeyDown = (event: React.KeyboardEvent) => {
    const { count, chosen, onChoose, onKey } = props;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const rows = view.current!.pageRows;
    const goes: Record<string, number> = {
      ArrowDown: chosen + 1,
      ArrowUp: chosen - 1,
      PageDown: chosen + rows,
      PageUp: chosen - rows,
      Home: 0,
      End: count - 1,
    };
    const target = goes[event.key];
    if (target !== undefined && count > 0) {
      const index = Math.max(0, Math.min(count - 1, target));
      onChoose(index);
      view.current!.show(index);
    } else if (onKey === undefined || !onKey(event.key, chosen)) return;
    event.preventDefault();
    event.stopPropagation();
  };

  return (
    <div className="grid">
      <div
        className="grid-scroll"
        role="grid"
        tabIndex={0}
        aria-label={props.label}
        aria-rowcount={props.count + 1}
        aria-activedescendant={props.chosen >= 0 && props.chosen < props.count ? `${id.current}-${props.chosen}` : undefined}
        ref={scroll}
        onScroll={() => view.current?.refresh()}
        onKeyDown={onKeyDown}
      >
        <div className="grid-head" role="row" aria-rowindex={1} ref={head}>
          {props.columns.map(({ title, className }) => (
            <div key={title} role="columnheader" className={className ?? ""}>
              {title}
            </div>
          ))}
        </div>
        <div className="grid-body" role="rowgroup" ref={body} />
        {props.count === 0 && <div className="empty">{props.empty}</div>}
      </div>
    </div>
  );
}
