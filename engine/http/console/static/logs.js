// Live log of a function.
"use strict";
