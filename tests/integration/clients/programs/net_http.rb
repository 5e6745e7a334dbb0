# Uploads of Ruby's Net::HTTP: net_http.rb URL FILE...; the last file is refused.
require "net/http"
require "stringio"

address, *files = ARGV
url = URI(address)

def post(http, path, body, chunked: false, close: false)
  request = Net::HTTP::Post.new(path, "content-type" => "application/octet-stream")
  request["connection"] = "close" if close
  if chunked
    request["transfer-encoding"] = "chunked"
    request.body_stream = StringIO.new(body)
  else
    request.body = body
  end
  answer = http.request(request)
  "#{answer.body} #{answer.code}"
end

Net::HTTP.start(url.host, url.port, max_retries: 0) do |http|
  answer = http.get("/get")
  puts "GET #{answer.body} #{answer.code}"
  files.each do |file|
    body, size = File.binread(file), File.basename(file)
    puts "plain #{size} #{post(http, "/plain", body)}"
    puts "chunked #{size} #{post(http, "/chunked", body, chunked: true)}"
  end
  body = File.binread(files.last)
  puts "kept plain #{post(http, "/refused/401", body)}"
  puts "kept chunked #{post(http, "/refused/404", body, chunked: true)}"
  puts "closed plain #{post(http, "/refused/413", body, close: true)}"
  puts "closed chunked #{post(http, "/refused/429", body, chunked: true, close: true)}"
  answer = http.get("/after")
  puts "after #{answer.body} #{answer.code}"
end
