// Counts orders that come through a message topic, in the style of callbacks.
'use strict';

var money = require('money');

exports.handler = function (event, context, callback) {
  var total = 0;
  event.record.forEach(function (record) {
    var order;
    try {
      order = JSON.parse(record.smn.message);
    } catch (error) {
      console.warn('skipped message ' + record.smn.message_id + ': ' + error.message);
      return;
    }
    total += order.lines.reduce(function (sum, line) { return sum + money.cents(line.price) * line.count; }, 0);
  });
  setImmediate(function () {
    callback(null, { function: context.getFunctionName(), total: money.format(total), currency: context.getUserData('currency', 'EUR') });
  });
};
