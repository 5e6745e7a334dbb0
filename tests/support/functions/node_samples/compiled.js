"use strict";
// As compilers of TypeScript write it: async functions as generators, exports one by one.
var __awaiter = (this && this.__awaiter) || function (thisArg, _arguments, P, generator) {
    return new (P || (P = Promise))(function (resolve, reject) {
        function step(result) { result.done ? resolve(result.value) : Promise.resolve(result.value).then((v) => step(generator.next(v)), reject); }
        step((generator = generator.apply(thisArg, _arguments || [])).next());
    });
};
Object.defineProperty(exports, "__esModule", { value: true });
exports.handler = void 0;
class ValidationError extends Error {
    constructor(field) {
        super(`${field} is not valid`);
        this.name = "ValidationError";
        this.field = field;
    }
}
const handler = (event, context) => __awaiter(void 0, void 0, void 0, function* () {
    yield null;
    if (typeof event.email !== "string" || !event.email.includes("@"))
        throw new ValidationError("email");
    return { ok: true, id: context.getRequestID() };
});
exports.handler = handler;
