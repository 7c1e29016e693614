import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./page/app";
import "./page/style.css";

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
