// The one place that knows which package draws the page.

export {
  html, render, createContext, useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useContext, useErrorBoundary,
} from "./vendor/preact.js";
